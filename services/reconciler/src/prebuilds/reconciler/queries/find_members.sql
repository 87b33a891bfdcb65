-- Members of these organisations, or where there are none of all, by user, or a page of them, by name.
SELECT
    m.organization_id, m.user_id, u.name AS user_name, u.is_system, m.roles, m.created_at,
    coalesce(q.used, 0) AS quota_used,
    coalesce(array_agg(g.id ORDER BY g.name) FILTER (WHERE g.id IS NOT NULL), '{}') AS group_ids,
    -- Nobody can use more than the largest number, whatever it adds up to.
    CASE
        WHEN bool_and(g.quota_allowance IS NOT NULL) THEN least(sum(g.quota_allowance), 9223372036854775807)::bigint
    END AS quota_allowance
FROM organization_members AS m
JOIN organizations AS o ON o.id = m.organization_id AND NOT o.deleted
JOIN users AS u ON u.id = m.user_id
LEFT JOIN quota_usage AS q ON q.organization_id = m.organization_id AND q.user_id = m.user_id
LEFT JOIN (group_members AS gm JOIN groups AS g ON g.id = gm.group_id)
    ON gm.user_id = m.user_id AND g.organization_id = m.organization_id
WHERE (%(organization_ids)s::uuid[] IS NULL OR m.organization_id = ANY(%(organization_ids)s))
    AND (%(user_id)s::uuid IS NULL OR m.user_id = %(user_id)s)
    AND (%(with_system)s OR NOT u.is_system)
    AND (%(name)s::text IS NULL OR u.name = %(name)s)
    AND (%(role)s::text IS NULL OR %(role)s = ANY(m.roles))
    AND (
        %(group)s::text IS NULL
        OR EXISTS (
            SELECT FROM group_members AS x JOIN groups AS y ON y.id = x.group_id
            WHERE x.user_id = m.user_id AND y.organization_id = m.organization_id
                AND (y.name = %(group)s OR y.id::text = lower(%(group)s))
        )
    )
    AND (%(after)s::text IS NULL OR (u.name, u.id) > (%(after)s, %(after_id)s::uuid))
GROUP BY m.organization_id, m.user_id, u.id, u.name, u.is_system, m.roles, m.created_at, q.used
ORDER BY u.name, u.id, m.organization_id
LIMIT %(limit)s
