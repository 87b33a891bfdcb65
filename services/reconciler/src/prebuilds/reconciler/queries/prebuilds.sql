-- Read the prebuilds of these pools one by one, with what each is doing by its latest build and that build's job.
WITH live AS (
    SELECT coalesce(array_agg(g.id), '{}') AS gateways
    FROM gateways AS g
    WHERE g.seen_at > now() - interval '60 s'
)
SELECT
    b.preset_id, b.workspace_id, b.created_at,
    CASE
        WHEN b.state IN ('starting', 'stopping', 'deleting') AND j.status = 'canceling' THEN 'canceling'
        WHEN b.state = 'starting' AND j.status = 'pending' AND build.number = 1 AND j.attempt = 0 THEN 'queued'
        WHEN b.state = 'running' AND b.delete_marked_at IS NOT NULL THEN 'deleting'
        ELSE b.state
    END AS activity,
    b.ready_at IS NOT NULL AND coalesce(b.gateways <@ (SELECT live.gateways FROM live), false) AS is_ready
FROM prebuilds AS b
JOIN workspaces AS w ON w.id = b.workspace_id
LEFT JOIN builds AS build ON build.id = w.latest_build_id
LEFT JOIN jobs AS j ON j.build_id = build.id
WHERE b.preset_id = ANY(%(preset_ids)s)
ORDER BY b.preset_id, b.created_at, b.workspace_id
