-- Who goes by these ids or names, among the members of an organisation or, without one, among all that are not deleted.
SELECT u.id, u.name, u.is_system
FROM users AS u
WHERE (u.id = ANY(%(ids)s::uuid[]) OR u.name = ANY(%(names)s::text[]))
    AND u.deleted_at IS NULL
    AND (
        %(organization_id)s::uuid IS NULL
        OR EXISTS (
            SELECT FROM organization_members AS m
            WHERE m.organization_id = %(organization_id)s AND m.user_id = u.id
        )
    )
ORDER BY u.id
