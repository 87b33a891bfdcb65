-- Find what a job belongs to, without any lock, so that the locks can be taken in their order.
SELECT build_id, workspace_id
FROM jobs
WHERE id = %(job_id)s
