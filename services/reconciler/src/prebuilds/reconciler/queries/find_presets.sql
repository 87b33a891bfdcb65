-- Presets by id, or a page of those of a version: the default one first, then by name.
SELECT
    p.id, p.organization_id, p.template_id, t.name AS template_name, p.version_id, v.name AS version_name,
    p.name, p.description, p.is_default, p.desired_instances, p.ttl, p.timezone,
    coalesce(t.active_version_id = p.version_id AND NOT t.deleted AND t.deprecated = '', false) AS is_active,
    p.status, p.status_message, p.last_invalidated_at, p.retry_requested_at, p.created_at,
    (
        SELECT coalesce(jsonb_object_agg(x.name, x.value), '{}') FROM preset_parameters AS x WHERE x.preset_id = p.id
    ) AS parameters,
    (
        SELECT coalesce(array_agg(x.cron ORDER BY x.ordinal), '{}') FROM preset_schedules AS x WHERE x.preset_id = p.id
    ) AS crons,
    (
        SELECT coalesce(array_agg(x.instances ORDER BY x.ordinal), '{}')
        FROM preset_schedules AS x
        WHERE x.preset_id = p.id
    ) AS schedule_instances
FROM presets AS p
JOIN templates AS t ON t.id = p.template_id
JOIN template_versions AS v ON v.id = p.version_id
WHERE (%(id)s::uuid IS NULL OR p.id = %(id)s)
    AND (%(version_id)s::uuid IS NULL OR p.version_id = %(version_id)s)
    AND (%(name)s::text IS NULL OR p.name = %(name)s)
    AND (%(status)s::text IS NULL OR p.status = %(status)s)
    AND (%(has_pool)s::boolean IS NULL OR (p.desired_instances IS NOT NULL) = %(has_pool)s)
    AND (%(after)s::text IS NULL OR (NOT p.is_default, p.name) > (NOT %(after_default)s::boolean, %(after)s))
ORDER BY NOT p.is_default, p.name
LIMIT %(limit)s
