-- Compute anew whether locked prebuilds are ready: their start has succeeded and every agent, retired ones aside, is ready.
UPDATE prebuilds AS p
SET ready_at = CASE WHEN agents.all_ready THEN coalesce(p.ready_at, clock_timestamp()) END
FROM (
    SELECT q.workspace_id, q.state = 'running' AND coalesce(bool_and(a.state = 'ready'), false) AS all_ready
    FROM prebuilds AS q
    LEFT JOIN agents AS a ON a.workspace_id = q.workspace_id AND NOT a.retired
    WHERE q.workspace_id = ANY(%(workspace_ids)s)
    GROUP BY q.workspace_id, q.state
) AS agents
WHERE p.workspace_id = agents.workspace_id
    AND (p.ready_at IS NOT NULL) <> agents.all_ready
RETURNING
    p.workspace_id, p.organization_id, p.preset_id, p.ready_at IS NOT NULL AS is_ready,
    (SELECT w.latest_build_id FROM workspaces AS w WHERE w.id = p.workspace_id) AS build_id,
    EXISTS (SELECT FROM presets AS s WHERE s.id = p.preset_id AND s.status = 'hard_limited') AS is_trial
