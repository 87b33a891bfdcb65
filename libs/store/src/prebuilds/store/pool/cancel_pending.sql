-- Cancel first starts of locked prebuilds that still wait, that no daemon has had, and whose version is still inactive; locks builds, then jobs.
WITH waiting AS (
    SELECT build.id
    FROM builds AS build
    JOIN workspaces AS w ON w.latest_build_id = build.id
    JOIN prebuilds AS b ON b.workspace_id = w.id
    JOIN templates AS t ON t.id = b.template_id
    WHERE b.workspace_id = ANY(%(workspace_ids)s)
        AND build.number = 1 AND build.transition = 'start' AND build.outcome IS NULL
        AND NOT coalesce(t.active_version_id = b.version_id AND NOT t.deleted AND t.deprecated = '', false)
    ORDER BY build.id
    FOR NO KEY UPDATE OF build
),
job AS (
    UPDATE jobs
    SET status = 'canceled', finished_at = clock_timestamp(), error = %(reason)s
    FROM waiting
    WHERE jobs.build_id = waiting.id AND jobs.status = 'pending' AND jobs.attempt = 0
    RETURNING jobs.build_id
)
UPDATE builds
SET outcome = 'canceled', finished_at = clock_timestamp(), error = %(reason)s
FROM job
WHERE builds.id = job.build_id
RETURNING builds.workspace_id, builds.id AS build_id
