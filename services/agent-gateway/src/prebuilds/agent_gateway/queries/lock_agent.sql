-- Lock an agent whose workspace is locked, and read it as it is now.
SELECT a.id AS agent_id, a.name, a.workspace_id, a.token_key_id, a.token_epoch, a.retired, w.deleted, a.incarnation,
    a.process, a.entry, a.generation, a.state
FROM agents AS a
JOIN workspaces AS w ON w.id = a.workspace_id
WHERE a.id = %(agent_id)s
FOR NO KEY UPDATE OF a
