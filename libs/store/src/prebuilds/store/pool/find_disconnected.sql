-- Find prebuilds, of all or of these, that run but were not connected for so long, while some gateway was live all that time.
WITH live AS (
    SELECT
        coalesce(array_agg(g.id), '{}') AS gateways,
        coalesce(bool_or(g.live_since <= now() - %(dead_after)s::interval), false) AS is_steady
    FROM gateways AS g
    WHERE g.seen_at > now() - %(gone_after)s::interval
)
SELECT p.workspace_id
FROM live
JOIN prebuilds AS p ON p.state = 'running' AND (p.gateways IS NULL OR NOT p.gateways <@ live.gateways)
JOIN workspaces AS w ON w.id = p.workspace_id
JOIN builds AS b ON b.id = w.latest_build_id
CROSS JOIN LATERAL (
    -- A gateway whose row was removed had been gone for long.
    SELECT min(coalesce(g.seen_at + %(gone_after)s::interval, '-infinity')) AS at
    FROM unnest(p.gateways) AS held (gateway_id)
    LEFT JOIN gateways AS g ON g.id = held.gateway_id
    WHERE held.gateway_id <> ALL(live.gateways)
) AS gone
WHERE live.is_steady
    AND (%(workspace_ids)s::uuid[] IS NULL OR p.workspace_id = ANY(%(workspace_ids)s))
    AND CASE WHEN p.gateways IS NULL THEN p.disconnected_at ELSE gone.at END <= now() - %(dead_after)s::interval
    AND b.finished_at <= now() - %(dead_after)s::interval
ORDER BY p.workspace_id
LIMIT %(limit)s
