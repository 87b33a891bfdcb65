-- Write down how a locked build ended, and end its job with it; the lease stays on record where its holder reported the end.
WITH build AS (
    UPDATE builds
    SET outcome = %(outcome)s::text,
        failure_class = %(failure_class)s,
        error = %(error)s,
        provisioner_state = coalesce(%(provisioner_state)s, provisioner_state),
        host = coalesce(%(host)s, host),
        daily_cost = coalesce(%(daily_cost)s, daily_cost),
        report = coalesce(%(report)s, report),
        finished_at = clock_timestamp()
    WHERE id = %(build_id)s
    RETURNING id
)
UPDATE jobs
SET status = %(outcome)s::text, error = %(error)s, lease_id = %(lease_id)s, finished_at = clock_timestamp()
FROM build
WHERE jobs.build_id = build.id
