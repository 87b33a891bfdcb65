-- Append events, one of each position of the arrays, and give the time of each.
INSERT INTO outbox (id, event, subject_id, organization_id, payload, traceparent)
SELECT row.id, row.event, row.subject_id, row.organization_id, row.payload, %(traceparent)s::text
FROM unnest(
    %(ids)s::uuid[],
    %(events)s::text[],
    %(subject_ids)s::uuid[],
    %(organization_ids)s::uuid[],
    %(payloads)s::jsonb[]
) AS row (id, event, subject_id, organization_id, payload)
RETURNING id, created_at
