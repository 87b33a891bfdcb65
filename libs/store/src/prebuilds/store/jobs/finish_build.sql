-- Write down how a locked build ended, and end its job with it.
WITH build AS (
    UPDATE builds
    SET outcome = %(outcome)s,
        failure_class = %(failure_class)s,
        error = %(error)s,
        provisioner_state = coalesce(%(provisioner_state)s, provisioner_state),
        host = coalesce(%(host)s, host),
        daily_cost = coalesce(%(daily_cost)s, daily_cost),
        finished_at = clock_timestamp()
    WHERE id = %(build_id)s
    RETURNING id
)
UPDATE jobs
SET status = %(outcome)s, error = %(error)s, lease_id = NULL, lease_expires_at = NULL,
    finished_at = clock_timestamp()
FROM build
WHERE jobs.build_id = build.id
