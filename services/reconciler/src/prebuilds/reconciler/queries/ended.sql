-- Read the prebuilds of all pools, or of these, that are kept for inspection or whose delete failed, with what retention goes by.
SELECT
    p.preset_id, p.workspace_id, p.created_at, latest.finished_at AS ended_at,
    CASE WHEN latest.transition = 'delete' THEN (
        SELECT count(*)
        FROM (
            SELECT bool_and(b.transition = 'delete' AND b.outcome <> 'succeeded') OVER (ORDER BY b.number DESC) AS is_in_row
            FROM builds AS b
            WHERE b.workspace_id = p.workspace_id
            ORDER BY b.number DESC
            LIMIT %(most_failures)s
        ) AS newest
        WHERE newest.is_in_row
    ) ELSE 0 END AS failed_deletes
FROM prebuilds AS p
JOIN workspaces AS w ON w.id = p.workspace_id
JOIN builds AS latest ON latest.id = w.latest_build_id AND latest.finished_at IS NOT NULL
WHERE (
        p.state IN ('failed', 'canceled')
        -- Somebody started or stopped it after its delete had failed: the mark stands.
        OR p.delete_marked_at IS NOT NULL AND p.state IN ('running', 'stopped')
    )
    AND (%(preset_ids)s::uuid[] IS NULL OR p.preset_id = ANY(%(preset_ids)s))
ORDER BY p.preset_id, p.created_at, p.workspace_id
