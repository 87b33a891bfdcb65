-- Find prebuilds, of all or of these, that run but were not connected for so long, while some gateway was live all that time.
WITH live AS MATERIALIZED (
    SELECT
        coalesce(array_agg(g.id), '{}') AS gateways,
        coalesce(bool_or(g.live_since <= now() - %(dead_after)s::interval), false) AS is_steady
    FROM gateways AS g
    WHERE g.seen_at > now() - %(gone_after)s::interval
)
SELECT p.workspace_id
FROM prebuilds AS p
WHERE (SELECT live.is_steady FROM live)
    AND p.state = 'running'
    AND (%(workspace_ids)s::uuid[] IS NULL OR p.workspace_id = ANY(%(workspace_ids)s))
    -- Nearly all of them stop here; what follows is looked up one by one.
    AND (p.gateways IS NULL OR NOT p.gateways <@ (SELECT live.gateways FROM live))
    AND CASE
        WHEN p.gateways IS NULL THEN p.disconnected_at
        -- A gateway whose row was removed had been gone for long.
        ELSE (
            SELECT min(coalesce(g.seen_at + %(gone_after)s::interval, '-infinity'))
            FROM unnest(p.gateways) AS held (gateway_id)
            LEFT JOIN gateways AS g ON g.id = held.gateway_id
            WHERE held.gateway_id <> ALL((SELECT live.gateways FROM live)::uuid[])
        )
    END <= now() - %(dead_after)s::interval
    AND (
        SELECT b.finished_at
        FROM workspaces AS w
        JOIN builds AS b ON b.id = w.latest_build_id
        WHERE w.id = p.workspace_id
    ) <= now() - %(dead_after)s::interval
ORDER BY p.workspace_id
LIMIT %(limit)s
