-- End the epoch of every agent of the workspaces, so that no token made so far is good for anything.
WITH locked AS (
    SELECT id
    FROM agents
    WHERE workspace_id = ANY(ARRAY(SELECT unnest(%(workspace_ids)s::uuid[])))
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE agents AS a
SET token_epoch = a.token_epoch + 1, token_key_id = NULL
FROM locked
WHERE a.id = locked.id
