-- Take the next job that a key may have: people's before the system's, then the oldest; locked ones are passed over.
WITH next AS (
    -- Of a job that was put back it is the lease that was lost: since then it waits, not since its queueing.
    SELECT id, lease_expires_at AS lost_at
    FROM jobs
    WHERE status = 'pending'
        AND backend = ANY(%(backends)s)
        AND tags <@ %(tags)s::jsonb
        AND (%(organization_id)s::uuid IS NULL OR organization_id = %(organization_id)s)
    ORDER BY priority, created_at, id
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs AS j
SET status = 'running',
    attempt = j.attempt + 1,
    lease_id = %(lease_id)s,
    lease_owner = coalesce((SELECT name FROM provisioner_keys WHERE id = %(key_id)s), '') || '/' || %(daemon)s::text,
    lease_expires_at = clock_timestamp() + %(lease_for)s::interval,
    started_at = coalesce(j.started_at, clock_timestamp())
FROM next, builds AS b
WHERE j.id = next.id AND b.id = j.build_id
RETURNING
    j.id AS job_id, j.organization_id, j.workspace_id, j.build_id, b.preset_id, b.owner_id, j.backend, j.attempt, j.lease_id,
    j.lease_expires_at, j.traceparent, clock_timestamp() - greatest(j.created_at, next.lost_at) AS queued_for
