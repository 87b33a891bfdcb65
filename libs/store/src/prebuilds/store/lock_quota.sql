-- Lock what the prebuilds of an organisation may cost until the transaction ends, unless somebody else holds it.
SELECT pg_try_advisory_xact_lock(hashtextextended('quota of prebuilds ' || %(organization_id)s::uuid::text, 0))
