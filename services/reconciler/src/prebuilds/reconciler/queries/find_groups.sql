-- Groups by id, or a page of those of an organisation, by name.
SELECT
    g.id, g.organization_id, g.name, g.quota_allowance, g.created_at,
    (
        SELECT count(*)
        FROM group_members AS gm
        JOIN users AS u ON u.id = gm.user_id
        WHERE gm.group_id = g.id AND NOT u.is_system
    ) AS member_count
FROM groups AS g
JOIN organizations AS o ON o.id = g.organization_id AND NOT o.deleted
WHERE (%(id)s::uuid IS NULL OR g.id = %(id)s)
    AND (%(organization_id)s::uuid IS NULL OR g.organization_id = %(organization_id)s)
    AND (%(name)s::text IS NULL OR g.name = %(name)s)
    AND (
        %(user)s::text IS NULL
        OR EXISTS (
            SELECT FROM group_members AS x JOIN users AS y ON y.id = x.user_id
            WHERE x.group_id = g.id AND (y.name = %(user)s OR y.id::text = lower(%(user)s))
        )
    )
    AND (%(after)s::text IS NULL OR g.name > %(after)s)
ORDER BY g.name
LIMIT %(limit)s
