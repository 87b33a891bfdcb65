-- Whether a template still takes new workspaces, and what people are told where it is deprecated.
SELECT deleted, deprecated
FROM templates
WHERE id = %(template_id)s
