-- Organisations by name or id, or a page of those that somebody may see, by name.
SELECT o.id, o.name, o.display_name, o.created_at
FROM organizations AS o
WHERE NOT o.deleted
    AND (%(id)s::uuid IS NULL OR o.id = %(id)s)
    AND (%(name)s::text IS NULL OR o.name = %(name)s)
    AND (%(visible)s::uuid[] IS NULL OR o.id = ANY(%(visible)s))
    AND (%(after)s::text IS NULL OR o.name > %(after)s)
ORDER BY o.name
LIMIT %(limit)s
