-- What the agents of a workspace run by in a generation: the newest start build of at most that generation, whatever became of it.
SELECT
    b.organization_id, b.workspace_id, b.workspace_name, b.owner_id, b.owner_name, t.name AS template_name,
    b.parameters, coalesce(v.manifest -> 'process', '{}') AS process
FROM builds AS b
JOIN template_versions AS v ON v.id = b.version_id
JOIN templates AS t ON t.id = v.template_id
WHERE b.workspace_id = %(workspace_id)s
    AND b.transition = 'start'
    AND b.generation <= %(generation)s
ORDER BY b.number DESC
LIMIT 1
