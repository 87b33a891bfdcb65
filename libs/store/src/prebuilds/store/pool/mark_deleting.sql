-- Set the delete mark of locked pool rows that nothing is being built of; from here on nobody claims them. A mark that is there stays.
UPDATE prebuilds
SET delete_marked_at = coalesce(prebuilds.delete_marked_at, clock_timestamp()), state = 'deleting'
FROM (
    SELECT p.workspace_id, p.delete_marked_at IS NULL AS is_first
    FROM prebuilds AS p
    WHERE p.workspace_id = ANY(%(workspace_ids)s)
        AND NOT EXISTS (
            SELECT FROM workspaces AS w JOIN builds AS b ON b.id = w.latest_build_id
            WHERE w.id = p.workspace_id AND b.outcome IS NULL
        )
) AS before
WHERE prebuilds.workspace_id = before.workspace_id
RETURNING prebuilds.workspace_id, before.is_first
