-- Lock the pool rows of these workspaces, those that are still unclaimed, in the order of their ids.
SELECT workspace_id
FROM prebuilds
WHERE workspace_id = ANY(ARRAY(SELECT unnest(%(workspace_ids)s::uuid[])))
ORDER BY workspace_id
FOR UPDATE
