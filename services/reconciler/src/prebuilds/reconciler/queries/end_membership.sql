-- Take a user out of the groups of an organisation; the membership itself has ended before.
DELETE FROM group_members AS gm
USING groups AS g
WHERE g.id = gm.group_id AND g.organization_id = %(organization_id)s AND gm.user_id = %(user_id)s
