-- Fail locked prebuilds that run: built, but dead. Their builds count as failed from now on, and ended now: so long they are kept.
WITH dead AS (
    SELECT *
    FROM unnest(%(workspace_ids)s::uuid[], %(errors)s::text[]) AS d (workspace_id, error)
),
pool AS (
    UPDATE prebuilds AS p
    SET state = 'failed', failure_class = %(failure_class)s::text, ready_at = NULL
    FROM dead
    WHERE p.workspace_id = dead.workspace_id AND p.state = 'running'
    RETURNING p.workspace_id, p.organization_id, p.template_id, p.preset_id, dead.error
),
build AS (
    UPDATE builds AS b
    SET outcome = 'failed', failure_class = %(failure_class)s::text, error = pool.error, finished_at = clock_timestamp()
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
