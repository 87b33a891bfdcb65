-- Make a workspace that is built cold; its first build follows in the same transaction.
INSERT INTO workspaces (organization_id, owner_id, name, template_id, last_used_at, ttl, deadline, autostart)
VALUES (
    %(organization_id)s, %(owner_id)s, %(name)s, %(template_id)s, now(), %(ttl)s::interval, now() + %(ttl)s::interval,
    %(autostart)s
)
RETURNING id
