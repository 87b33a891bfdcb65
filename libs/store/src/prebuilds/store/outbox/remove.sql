-- Remove events that are published.
DELETE FROM outbox
WHERE id IN (
    SELECT id FROM outbox WHERE id = ANY (%(ids)s::uuid[]) ORDER BY id FOR UPDATE
)
