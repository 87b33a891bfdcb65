-- Renew a lease that is still held, and tell whether its job is to be given up.
UPDATE jobs
SET lease_expires_at = clock_timestamp() + %(lease_for)s::interval
WHERE id = %(job_id)s
    AND lease_id = %(lease_id)s
    AND status IN ('running', 'canceling')
    AND (%(organization_id)s::uuid IS NULL OR organization_id = %(organization_id)s)
RETURNING id AS job_id, attempt, lease_expires_at, cancel_requested_at
