-- Set the delete mark of locked pool rows that nothing is being built of, and tell history of each once; from here on nobody claims them. A mark that is there stays.
WITH marked AS (
    UPDATE prebuilds
    SET delete_marked_at = coalesce(prebuilds.delete_marked_at, clock_timestamp()), state = 'deleting'
    FROM (
        SELECT p.workspace_id, p.delete_marked_at IS NULL AS is_first
        FROM prebuilds AS p
        WHERE p.workspace_id = ANY(ARRAY(SELECT unnest(%(workspace_ids)s::uuid[])))
            AND NOT EXISTS (
                SELECT FROM workspaces AS w JOIN builds AS b ON b.id = w.latest_build_id
                WHERE w.id = p.workspace_id AND b.outcome IS NULL
            )
    ) AS before
    WHERE prebuilds.workspace_id = before.workspace_id
    RETURNING prebuilds.workspace_id, before.is_first
),
pool_event AS (
    INSERT INTO pool_events (organization_id, template_id, preset_name, kind, reason, workspace_id)
    SELECT
        %(organization_id)s, %(template_id)s, %(preset_name)s, %(kind)s, %(reason)s, marked.workspace_id
    FROM marked
    WHERE marked.is_first
)
SELECT workspace_id
FROM marked
