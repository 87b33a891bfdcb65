-- Read the presets of these pools, with what their templates and versions say about them.
SELECT
    p.id AS preset_id, p.organization_id, p.template_id, p.version_id, p.name AS preset_name,
    t.name AS template_name, v.name AS version_name,
    coalesce(t.active_version_id = p.version_id AND NOT t.deleted AND t.deprecated = '', false) AS is_active,
    p.desired_instances, p.ttl, p.timezone, p.status, p.status_since, p.status_message,
    p.last_invalidated_at, p.retry_requested_at, t.max_starting,
    coalesce(p.paused_at, t.paused_at) AS paused_at,
    p.over_quota_since, g.quota_allowance IS NOT NULL AS has_allowance,
    coalesce(s.crons, '{}') AS crons,
    coalesce(s.instances, '{}') AS schedule_instances
FROM presets AS p
JOIN templates AS t ON t.id = p.template_id
JOIN template_versions AS v ON v.id = p.version_id
LEFT JOIN groups AS g ON g.organization_id = p.organization_id AND g.name = 'prebuilds'
LEFT JOIN LATERAL (
    SELECT array_agg(x.cron ORDER BY x.ordinal) AS crons, array_agg(x.instances ORDER BY x.ordinal) AS instances
    FROM preset_schedules AS x
    WHERE x.preset_id = p.id AND p.timezone <> ''
) AS s ON true
WHERE p.id = ANY(%(preset_ids)s)
