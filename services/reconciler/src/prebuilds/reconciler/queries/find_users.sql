-- Users by id, or a page of those of an organisation, or of all, by name.
SELECT u.id, u.name, u.issuer, u.subject, u.is_system, u.created_at, u.last_seen_at, u.deleted_at
FROM users AS u
WHERE (%(id)s::uuid IS NULL OR u.id = %(id)s)
    AND (
        %(organization_ids)s::uuid[] IS NULL
        OR EXISTS (
            SELECT FROM organization_members AS m
            WHERE m.organization_id = ANY(%(organization_ids)s) AND m.user_id = u.id
        )
    )
    AND (%(with_system)s OR NOT u.is_system)
    AND (%(with_deleted)s OR u.deleted_at IS NULL)
    AND (%(name)s::text IS NULL OR u.name = %(name)s)
    AND (%(issuer)s::text IS NULL OR u.issuer = %(issuer)s)
    AND (%(subject)s::text IS NULL OR u.subject = %(subject)s)
    AND (%(after)s::text IS NULL OR (u.name, u.id) > (%(after)s, %(after_id)s::uuid))
ORDER BY u.name, u.id
LIMIT %(limit)s
