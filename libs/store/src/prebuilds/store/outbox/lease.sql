-- Lease the oldest events that are old enough and that no sweeper holds.
WITH taken AS MATERIALIZED (
    SELECT id
    FROM outbox
    WHERE created_at < clock_timestamp() - %(older_than)s::interval
        AND (leased_until IS NULL OR leased_until < clock_timestamp())
    ORDER BY created_at, id
    LIMIT %(limit)s::int
    FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE outbox
    SET leased_until = clock_timestamp() + %(lease_for)s::interval
    FROM taken
    WHERE outbox.id = taken.id
    RETURNING outbox.id, event, subject_id, organization_id, payload, traceparent, created_at
)
SELECT id, event, subject_id, organization_id, payload, traceparent, created_at
FROM leased
ORDER BY created_at, id
