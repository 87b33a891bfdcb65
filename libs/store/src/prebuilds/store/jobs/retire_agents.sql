-- Retire the agents of a workspace that its build no longer has.
WITH locked AS (
    SELECT id
    FROM agents
    WHERE workspace_id = %(workspace_id)s AND NOT retired AND name <> ALL(%(present)s)
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE agents AS a
SET retired = true, gateway_id = NULL, connection_id = NULL
FROM locked
WHERE a.id = locked.id
RETURNING a.id
