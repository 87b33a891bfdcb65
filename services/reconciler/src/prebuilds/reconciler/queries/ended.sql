-- Read the prebuilds of these pools that are kept for inspection or whose delete failed, with what retention goes by.
SELECT
    p.preset_id, p.workspace_id, p.created_at, latest.finished_at AS ended_at, p.is_marked,
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
FROM (
    -- Each from an index of few: of all prebuilds nearly none has ended.
    SELECT e.preset_id, e.workspace_id, e.created_at, e.delete_marked_at IS NOT NULL AS is_marked
    FROM prebuilds AS e
    WHERE e.state IN ('failed', 'canceled') AND e.preset_id = ANY(%(preset_ids)s)
    UNION ALL
    -- Somebody started or stopped it after its delete had failed: the mark stands.
    SELECT m.preset_id, m.workspace_id, m.created_at, true AS is_marked
    FROM prebuilds AS m
    WHERE m.delete_marked_at IS NOT NULL AND m.state IN ('running', 'stopped') AND m.preset_id = ANY(%(preset_ids)s)
) AS p
JOIN workspaces AS w ON w.id = p.workspace_id
JOIN builds AS latest ON latest.id = w.latest_build_id AND latest.finished_at IS NOT NULL
ORDER BY p.preset_id, p.created_at, p.workspace_id
