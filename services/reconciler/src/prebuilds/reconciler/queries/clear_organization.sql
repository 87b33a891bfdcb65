-- Mark what lies in an organisation that is going: its templates, so that nothing is built of them, and its keys.
WITH revoked AS (
    UPDATE provisioner_keys AS k
    SET revoked_at = now()
    WHERE k.organization_id = %(organization_id)s AND k.revoked_at IS NULL
)
UPDATE templates AS t
SET deleted = true, updated_at = now()
WHERE t.organization_id = %(organization_id)s AND NOT t.deleted
RETURNING t.id
