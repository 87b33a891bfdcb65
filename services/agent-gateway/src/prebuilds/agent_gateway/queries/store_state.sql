-- Store how far the incarnation of a locked agent is.
UPDATE agents
SET state = %(state)s, error = %(error)s, state_changed_at = clock_timestamp()
WHERE id = %(agent_id)s
