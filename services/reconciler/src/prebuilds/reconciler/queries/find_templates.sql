-- Templates by id, or of an organisation by name, or a page of them, by name.
SELECT
    t.id, t.organization_id, t.name, t.display_name, t.description, t.active_version_id, t.deprecated, t.deleted,
    t.default_ttl, t.autostart, t.time_til_dormant, t.time_til_dormant_autodelete, t.claim_strategy, t.max_starting,
    t.created_at, t.updated_at, coalesce(v.name, '') AS active_version_name
FROM templates AS t
LEFT JOIN template_versions AS v ON v.id = t.active_version_id
WHERE (%(id)s::uuid IS NULL OR t.id = %(id)s)
    AND (%(organization_id)s::uuid IS NULL OR t.organization_id = %(organization_id)s)
    AND (%(named)s::text IS NULL OR t.name = %(named)s AND NOT t.deleted OR t.id::text = %(named)s)
    AND (%(with_deleted)s OR NOT t.deleted)
    AND (%(name)s::text IS NULL OR t.name = %(name)s)
    AND (%(is_deprecated)s::boolean IS NULL OR (t.deprecated <> '') = %(is_deprecated)s)
    AND (%(after)s::text IS NULL OR (t.name, t.id) > (%(after)s, %(after_id)s::uuid))
ORDER BY t.name, t.id
LIMIT %(limit)s
