-- Versions by id, or of a template by name, or a page of them, newest first.
SELECT
    v.id, v.organization_id, v.template_id, t.name AS template_name, v.number, v.name, v.backend, v.agents, v.manifest,
    v.archive_size, v.archive_sha256, v.created_by, u.name AS creator_name, v.created_at,
    coalesce(t.active_version_id = v.id, false) AS is_active
FROM template_versions AS v
JOIN templates AS t ON t.id = v.template_id
JOIN users AS u ON u.id = v.created_by
WHERE (%(id)s::uuid IS NULL OR v.id = %(id)s)
    AND (%(template_id)s::uuid IS NULL OR v.template_id = %(template_id)s)
    AND (%(named)s::text IS NULL OR v.name = %(named)s OR v.id::text = %(named)s)
    AND (%(name)s::text IS NULL OR v.name = %(name)s)
    AND (%(is_active)s::boolean IS NULL OR coalesce(t.active_version_id = v.id, false) = %(is_active)s)
    AND (%(before)s::int IS NULL OR v.number < %(before)s)
ORDER BY v.number DESC
LIMIT %(limit)s
