-- Find those of these locked prebuilds that run although the startup of an agent failed, with what the agents said.
SELECT
    p.workspace_id,
    string_agg(a.name || ': ' || coalesce(nullif(a.error, ''), a.state), '; ' ORDER BY a.name) AS error
FROM prebuilds AS p
JOIN agents AS a ON a.workspace_id = p.workspace_id AND NOT a.retired
WHERE p.workspace_id = ANY(%(workspace_ids)s)
    AND p.state = 'running'
    AND a.state IN ('start_error', 'start_timeout')
GROUP BY p.workspace_id
