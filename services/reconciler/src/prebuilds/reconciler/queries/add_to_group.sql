-- Put members of its organisation into a group. Their membership is locked, so that its end takes them out again.
WITH locked AS (
    SELECT m.user_id
    FROM organization_members AS m
    WHERE m.organization_id = %(organization_id)s AND m.user_id = ANY(%(user_ids)s::uuid[])
    ORDER BY m.user_id
    FOR KEY SHARE
)
INSERT INTO group_members (group_id, user_id)
SELECT %(group_id)s, locked.user_id
FROM locked
ON CONFLICT (group_id, user_id) DO NOTHING
RETURNING user_id
