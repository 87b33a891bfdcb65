-- Provisioner keys by id, or a page of those of an organisation, or of those for all organisations, by name.
SELECT k.id, k.organization_id, k.name, k.tags, k.created_at, k.revoked_at
FROM provisioner_keys AS k
LEFT JOIN organizations AS o ON o.id = k.organization_id
WHERE o.deleted IS NOT TRUE
    AND (%(id)s::uuid IS NULL OR k.id = %(id)s)
    AND (%(id)s::uuid IS NOT NULL OR k.organization_id IS NOT DISTINCT FROM %(organization_id)s)
    AND (%(name)s::text IS NULL OR k.name = %(name)s)
    AND (%(with_revoked)s OR k.revoked_at IS NULL)
    AND (%(after)s::text IS NULL OR k.name > %(after)s)
ORDER BY k.name
LIMIT %(limit)s
