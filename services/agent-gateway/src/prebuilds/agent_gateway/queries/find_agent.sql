-- Find an agent and whose token it answers to, without any lock.
SELECT a.id AS agent_id, a.name, a.workspace_id, a.token_key_id, a.token_epoch, a.retired, w.deleted, a.incarnation,
    a.process, a.entry, a.generation, a.state
FROM agents AS a
JOIN workspaces AS w ON w.id = a.workspace_id
WHERE a.id = %(agent_id)s
