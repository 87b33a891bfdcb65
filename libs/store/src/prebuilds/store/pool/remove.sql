-- Remove a workspace that is gone, and its row in the pool if it was a prebuild.
WITH workspace AS (
    UPDATE workspaces
    SET deleted = true, deleted_at = clock_timestamp()
    WHERE id = ANY(%(workspace_ids)s)
    RETURNING id
)
DELETE FROM prebuilds AS p
USING workspace AS w
WHERE p.workspace_id = w.id
