-- Put the system user into its group wherever it is a member: whoever made either, they are seen by now.
INSERT INTO group_members (group_id, user_id)
SELECT g.id, m.user_id
FROM organization_members AS m
JOIN groups AS g ON g.organization_id = m.organization_id AND g.name = %(group_name)s
WHERE m.user_id = %(user_id)s
    AND NOT EXISTS (SELECT FROM group_members AS gm WHERE gm.group_id = g.id AND gm.user_id = m.user_id)
ORDER BY g.id
ON CONFLICT (group_id, user_id) DO NOTHING
