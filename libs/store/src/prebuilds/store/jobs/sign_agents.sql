-- Name the key that signs the tokens of a workspace's agents where none does yet: those of an epoch whose job is first acquired.
WITH unsigned AS (
    SELECT id
    FROM agents
    WHERE workspace_id = %(workspace_id)s AND token_key_id IS NULL AND NOT retired
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE agents AS a
SET token_key_id = %(key_id)s
FROM unsigned
WHERE a.id = unsigned.id
