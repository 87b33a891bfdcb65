-- Find an organisation by id or name.
SELECT id
FROM organizations
WHERE (id = %(id)s OR name = %(name)s) AND NOT deleted
