-- Give each workspace the agents of its latest build's version; agents that were there, locked by the statement before, get a new epoch and begin from nothing.
INSERT INTO agents AS a (organization_id, workspace_id, name)
SELECT w.organization_id, w.id, wanted.name
FROM workspaces AS w
JOIN builds AS b ON b.id = w.latest_build_id
JOIN template_versions AS v ON v.id = b.version_id
CROSS JOIN LATERAL unnest(v.agents) AS wanted (name)
WHERE w.id = ANY(%(workspace_ids)s)
ORDER BY w.id, wanted.name
ON CONFLICT (workspace_id, name) DO UPDATE
SET token_key_id = NULL,
    token_epoch = a.token_epoch + 1,
    retired = false,
    process = '',
    entry = 0,
    state = 'created',
    state_changed_at = clock_timestamp(),
    error = '',
    gateway_id = NULL,
    connection_id = NULL,
    attempt = 0,
    connected_at = NULL,
    disconnected_at = NULL
