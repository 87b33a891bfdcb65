-- The names of a workspace's agents, retired ones aside.
SELECT name
FROM agents
WHERE workspace_id = %(workspace_id)s AND NOT retired
ORDER BY name
