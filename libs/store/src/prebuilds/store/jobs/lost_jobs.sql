-- Find, without locks, the jobs that a sweep is to look at: lease lost, cancellation overdue, or no daemon for too long.
(
    SELECT id
    FROM jobs
    WHERE status IN ('running', 'canceling')
        AND lease_expires_at < clock_timestamp()
    ORDER BY lease_expires_at
    LIMIT %(limit)s
)
UNION
(
    SELECT id
    FROM jobs
    WHERE status IN ('running', 'canceling')
        AND cancel_requested_at < clock_timestamp() - %(cancel_grace)s::interval
    ORDER BY cancel_requested_at
    LIMIT %(limit)s
)
UNION
(
    SELECT id
    FROM jobs
    WHERE status = 'pending'
        AND greatest(created_at, lease_expires_at) < clock_timestamp() - %(longest_wait)s::interval
    ORDER BY created_at
    LIMIT %(limit)s
)
