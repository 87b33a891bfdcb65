-- The organisations of which the user is the only owner.
SELECT m.organization_id
FROM organization_members AS m
JOIN organizations AS o ON o.id = m.organization_id AND NOT o.deleted
WHERE m.user_id = %(user_id)s
    AND (%(organization_id)s::uuid IS NULL OR m.organization_id = %(organization_id)s)
    AND 'owner' = ANY(m.roles)
    AND NOT EXISTS (
        SELECT FROM organization_members AS other
        WHERE other.organization_id = m.organization_id AND other.user_id <> m.user_id AND 'owner' = ANY(other.roles)
    )
ORDER BY m.organization_id
