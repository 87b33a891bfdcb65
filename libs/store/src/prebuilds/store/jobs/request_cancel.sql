-- Ask whoever holds a locked job that runs to give it up; the daemon hears it with its next sign of life.
UPDATE jobs
SET status = 'canceling', cancel_requested_at = clock_timestamp()
WHERE id = %(job_id)s AND status = 'running'
