-- A page of the audit log, of an organisation or of all, newest first.
SELECT
    a.id, a.organization_id, a.created_at, a.principal, a.principal_name, a.action, a.resource, a.resource_id,
    a.resource_name, a.details
FROM audit_log AS a
WHERE (%(organization_id)s::uuid IS NULL OR a.organization_id = %(organization_id)s)
    AND (%(start)s::timestamptz IS NULL OR a.created_at >= %(start)s)
    AND (%(end)s::timestamptz IS NULL OR a.created_at < %(end)s)
    AND (
        %(actor)s::text IS NULL
        OR a.principal_name = %(actor)s
        OR split_part(a.principal, ':', 2) = lower(%(actor)s)
    )
    AND (%(actor_kind)s::text IS NULL OR split_part(a.principal, ':', 1) = %(actor_kind)s)
    AND (%(action)s::text IS NULL OR a.action = %(action)s)
    AND (%(resource)s::text IS NULL OR a.resource = %(resource)s)
    AND (%(resource_id)s::uuid IS NULL OR a.resource_id = %(resource_id)s)
    AND (%(before)s::bigint IS NULL OR a.id < %(before)s)
ORDER BY a.id DESC
LIMIT %(limit)s
