-- Detach streams from their agents, those that no other stream has replaced; the pool rows were locked before, agents are locked by id.
WITH locked AS (
    SELECT id
    FROM agents
    WHERE id = ANY (%(agent_ids)s) AND connection_id = ANY (%(connection_ids)s)
    ORDER BY id
    FOR NO KEY UPDATE
)
UPDATE agents AS a
SET gateway_id = NULL, connection_id = NULL, disconnected_at = clock_timestamp()
FROM locked
WHERE a.id = locked.id AND a.connection_id = ANY (%(connection_ids)s)
