-- Count anew which gateways hold the agents of locked prebuilds; null while an agent, retired ones aside, is missing.
UPDATE prebuilds AS p
SET gateways = agents.gateways,
    disconnected_at = CASE WHEN agents.gateways IS NULL THEN coalesce(p.disconnected_at, clock_timestamp()) END
FROM (
    SELECT
        q.workspace_id,
        CASE WHEN bool_and(a.gateway_id IS NOT NULL) THEN array_agg(DISTINCT a.gateway_id) END AS gateways
    FROM prebuilds AS q
    LEFT JOIN agents AS a ON a.workspace_id = q.workspace_id AND NOT a.retired
    WHERE q.workspace_id = ANY (%(workspace_ids)s)
    GROUP BY q.workspace_id
) AS agents
WHERE p.workspace_id = agents.workspace_id
    AND p.gateways IS DISTINCT FROM agents.gateways
RETURNING
    p.workspace_id, p.organization_id, p.preset_id,
    p.gateways IS NOT NULL AND p.ready_at IS NOT NULL AS is_claimable
