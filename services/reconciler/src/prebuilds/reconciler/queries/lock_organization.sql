-- Lock who belongs to an organisation until the transaction ends: its owners are counted and removed one after another.
SELECT pg_advisory_xact_lock(hashtextextended('organization ' || %(organization_id)s::uuid::text, 0))
