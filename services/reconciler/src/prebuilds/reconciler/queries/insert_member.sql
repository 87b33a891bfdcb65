-- Make a user a member. Who is deleted is not made one: the lock makes a deletion that is under way decide first.
WITH alive AS (
    SELECT u.id FROM users AS u WHERE u.id = %(user_id)s AND u.deleted_at IS NULL FOR SHARE
)
INSERT INTO organization_members (organization_id, user_id, roles)
SELECT %(organization_id)s, alive.id, %(roles)s
FROM alive
ON CONFLICT (organization_id, user_id) DO NOTHING
RETURNING user_id
