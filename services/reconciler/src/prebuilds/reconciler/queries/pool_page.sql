-- Name the presets of a page of an organisation's pools, by template, then name, then id.
SELECT p.id
FROM templates AS t
JOIN presets AS p ON p.template_id = t.id AND p.desired_instances IS NOT NULL
JOIN template_versions AS v ON v.id = p.version_id
CROSS JOIN LATERAL (
    SELECT coalesce(t.active_version_id = p.version_id AND NOT t.deleted AND t.deprecated = '', false) AS active
) AS preset
WHERE t.organization_id = %(organization_id)s
    AND (preset.active OR EXISTS (SELECT FROM prebuilds AS b WHERE b.preset_id = p.id))
    AND (%(template)s::text IS NULL OR t.name = %(template)s OR t.id::text = %(template)s)
    AND (%(preset)s::text IS NULL OR p.name = %(preset)s OR p.id::text = %(preset)s)
    AND (%(version)s::text IS NULL OR v.name = %(version)s OR v.id::text = %(version)s)
    AND (%(is_active)s::boolean IS NULL OR preset.active = %(is_active)s)
    AND (%(status)s::text IS NULL OR p.status = %(status)s)
    AND (%(after_template)s::text IS NULL OR (t.name, p.name, p.id) > (%(after_template)s, %(after)s, %(after_id)s::uuid))
ORDER BY t.name, p.name, p.id
LIMIT %(limit)s
