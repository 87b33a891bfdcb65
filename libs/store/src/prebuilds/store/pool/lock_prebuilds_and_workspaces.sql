-- Lock the pool rows of these workspaces, those that are still unclaimed, and then the workspaces, each in the order of their ids.
WITH pool AS MATERIALIZED (
    SELECT workspace_id
    FROM prebuilds
    WHERE workspace_id = ANY(ARRAY(SELECT unnest(%(workspace_ids)s::uuid[])))
    ORDER BY workspace_id
    FOR UPDATE
)
SELECT w.id
FROM pool
JOIN workspaces AS w ON w.id = pool.workspace_id
ORDER BY w.id
FOR NO KEY UPDATE OF w
