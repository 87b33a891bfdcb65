-- Name the key that signs the tokens of a workspace's agents where none does yet (an epoch whose job is first acquired) or one that is known no more.
WITH unsigned AS (
    SELECT id
    FROM agents
    WHERE workspace_id = %(workspace_id)s
        AND NOT retired
        AND (token_key_id IS NULL OR token_key_id <> ALL(%(known_key_ids)s))
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE agents AS a
SET token_key_id = %(key_id)s
FROM unsigned
WHERE a.id = unsigned.id
