-- Read the pauses that reach these pools, the widest first: of the deployment, of their templates, of themselves.
SELECT
    'deployment' AS scope, NULL::uuid AS target_id, coalesce(s.value ->> 'message', '') AS message,
    s.updated_by AS creator_id, coalesce(u.name, '') AS creator_name, s.updated_at AS created_at
FROM settings AS s
LEFT JOIN users AS u ON u.id = s.updated_by
WHERE s.key = 'reconciliation_pause'
UNION ALL
SELECT 'template', t.id, t.pause_message, t.paused_by, coalesce(u.name, ''), t.paused_at
FROM templates AS t
LEFT JOIN users AS u ON u.id = t.paused_by
WHERE t.id = ANY(%(template_ids)s) AND t.paused_at IS NOT NULL
UNION ALL
SELECT 'preset', p.id, p.pause_message, p.paused_by, coalesce(u.name, ''), p.paused_at
FROM presets AS p
LEFT JOIN users AS u ON u.id = p.paused_by
WHERE p.id = ANY(%(preset_ids)s) AND p.paused_at IS NOT NULL
