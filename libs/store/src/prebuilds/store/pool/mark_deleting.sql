-- Set the delete mark of locked pool rows; from here on nobody claims them.
UPDATE prebuilds
SET delete_marked_at = clock_timestamp(), state = 'deleting'
WHERE workspace_id = ANY(%(workspace_ids)s)
    AND delete_marked_at IS NULL
    AND NOT EXISTS (
        SELECT FROM workspaces AS w JOIN builds AS b ON b.id = w.latest_build_id
        WHERE w.id = prebuilds.workspace_id AND b.outcome IS NULL
    )
RETURNING workspace_id, organization_id, template_id
