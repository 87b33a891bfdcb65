-- Attach streams to their agents where no later stream has been; the pool rows were locked before, agents are locked by id.
WITH wanted AS (
    SELECT *
    FROM unnest(
        %(agent_ids)s::uuid[],
        %(connection_ids)s::uuid[],
        %(epochs)s::int[],
        %(incarnations)s::int[],
        %(attempts)s::int[]
    ) AS stream (agent_id, connection_id, epoch, incarnation, attempt)
),
locked AS (
    SELECT agents.id
    FROM agents
    WHERE agents.id = ANY (%(agent_ids)s)
    ORDER BY agents.id
    FOR NO KEY UPDATE
)
UPDATE agents AS a
SET gateway_id = %(gateway_id)s,
    connection_id = wanted.connection_id,
    attempt = wanted.attempt,
    connected_at = clock_timestamp(),
    disconnected_at = NULL
FROM locked
JOIN wanted ON wanted.agent_id = locked.id
WHERE a.id = locked.id
    AND NOT a.retired
    AND a.token_epoch = wanted.epoch
    AND (wanted.incarnation, wanted.attempt) >= (a.incarnation, a.attempt)
RETURNING a.connection_id
