-- Find the workspace and the job of a build.
SELECT b.workspace_id, j.id AS job_id
FROM builds AS b
LEFT JOIN jobs AS j ON j.build_id = b.id
WHERE b.id = %(build_id)s
