-- The agents that a workspace shall have after a build, with what their tokens are made of.
SELECT a.id, a.name, a.token_key_id, a.token_epoch
FROM jobs AS j
JOIN builds AS b ON b.id = j.build_id
JOIN template_versions AS v ON v.id = b.version_id
JOIN agents AS a ON a.workspace_id = j.workspace_id AND a.name = ANY(v.agents) AND NOT a.retired
WHERE j.id = %(job_id)s
ORDER BY a.name
