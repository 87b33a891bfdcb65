-- Fail locked prebuilds that run although the startup of an agent failed: built, but dead. Their builds count as failed from now on.
WITH dead AS (
    SELECT p.workspace_id, string_agg(a.name || ': ' || coalesce(nullif(a.error, ''), a.state), '; ' ORDER BY a.name) AS error
    FROM prebuilds AS p
    JOIN agents AS a ON a.workspace_id = p.workspace_id AND NOT a.retired
    WHERE p.workspace_id = ANY (%(workspace_ids)s)
        AND p.state = 'running'
        AND a.state IN ('start_error', 'start_timeout')
    GROUP BY p.workspace_id
),
pool AS (
    UPDATE prebuilds AS p
    SET state = 'failed', failure_class = 'template', ready_at = NULL
    FROM dead
    WHERE p.workspace_id = dead.workspace_id
    RETURNING p.workspace_id, p.organization_id, p.template_id, p.preset_id, dead.error
),
build AS (
    UPDATE builds AS b
    SET outcome = 'failed', failure_class = 'template', error = pool.error
    FROM pool
    JOIN workspaces AS w ON w.id = pool.workspace_id
    WHERE b.id = w.latest_build_id AND b.outcome = 'succeeded'
    RETURNING b.id, b.workspace_id
)
SELECT
    pool.workspace_id, pool.organization_id, pool.template_id, pool.preset_id, preset.name AS preset_name,
    build.id AS build_id
FROM pool
JOIN presets AS preset ON preset.id = pool.preset_id
JOIN build ON build.workspace_id = pool.workspace_id
