-- Lock the agents of these workspaces in the order of their ids, which an upsert by name would not keep.
SELECT id
FROM agents
WHERE workspace_id = ANY(%(workspace_ids)s)
ORDER BY id
FOR NO KEY UPDATE
