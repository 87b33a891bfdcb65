-- Name the presets that have or should have prebuilds: all of them, or those that the hints are about.
SELECT p.id
FROM presets AS p
JOIN templates AS t ON t.id = p.template_id
WHERE (
        (
            p.desired_instances IS NOT NULL AND t.active_version_id = p.version_id
            AND NOT t.deleted AND t.deprecated = ''
        )
        OR EXISTS (SELECT FROM prebuilds AS b WHERE b.preset_id = p.id)
    )
    AND (
        %(everything)s
        OR p.id = ANY(%(preset_ids)s)
        OR p.template_id = ANY(%(template_ids)s)
        OR p.organization_id = ANY(%(organization_ids)s)
        OR p.id IN (SELECT b.preset_id FROM prebuilds AS b WHERE b.workspace_id = ANY(%(workspace_ids)s))
    )
ORDER BY p.id
