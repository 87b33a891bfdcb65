-- Find those of these locked prebuilds of which no daemon ever had a job: there is nothing to destroy.
SELECT p.workspace_id, p.delete_marked_at IS NULL AS is_first
FROM prebuilds AS p
WHERE p.workspace_id = ANY(%(workspace_ids)s)
    AND NOT EXISTS (
        SELECT
        FROM builds AS b
        JOIN jobs AS j ON j.build_id = b.id
        WHERE b.workspace_id = p.workspace_id AND (b.outcome IS NULL OR j.attempt > 0)
    )
ORDER BY p.workspace_id
