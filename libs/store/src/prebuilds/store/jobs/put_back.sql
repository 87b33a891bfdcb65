-- Put a locked job whose lease was lost back into the queue, at its old place.
UPDATE jobs
SET status = 'pending', lease_id = NULL
WHERE id = %(job_id)s
