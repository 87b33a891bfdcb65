-- Begin an incarnation of a locked agent: from nothing, and held by nobody yet.
UPDATE agents
SET incarnation = %(incarnation)s,
    process = %(process)s,
    entry = %(entry)s,
    generation = %(generation)s,
    state = 'created',
    state_changed_at = clock_timestamp(),
    error = '',
    disconnected_at = CASE WHEN gateway_id IS NULL THEN disconnected_at ELSE clock_timestamp() END,
    gateway_id = NULL,
    connection_id = NULL,
    attempt = 0
WHERE id = %(agent_id)s
