-- Make a workspace that is built cold, in an organisation that is not deleted, nor until this has ended; its first build follows in the same transaction.
WITH home AS (
    SELECT o.id FROM organizations AS o WHERE o.id = %(organization_id)s AND NOT o.deleted FOR SHARE
)
INSERT INTO workspaces (organization_id, owner_id, name, template_id, last_used_at, ttl, deadline, autostart)
SELECT
    home.id, %(owner_id)s, %(name)s, %(template_id)s, now(), %(ttl)s::interval, now() + %(ttl)s::interval, %(autostart)s
FROM home
RETURNING id
