-- The age of the oldest event that is not published yet.
SELECT clock_timestamp() - created_at AS age
FROM outbox
ORDER BY created_at
LIMIT 1
