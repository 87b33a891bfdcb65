-- Queue one build, with its job, for each workspace given; owner, name, generation, and what the order leaves open, are taken from the workspace and its latest build.
WITH orders AS (
    SELECT *
    FROM jsonb_to_recordset(%(orders)s) AS o (
        build_id uuid, job_id uuid, workspace_id uuid, transition text, reason text, initiator_id uuid,
        priority integer, version_id uuid, preset_id uuid, parameters jsonb, daily_cost integer
    )
),
build AS (
    INSERT INTO builds (
        id, organization_id, workspace_id, number, version_id, preset_id, transition, reason, generation,
        owner_id, owner_name, workspace_name, initiator_id, parameters, daily_cost
    )
    SELECT
        o.build_id, w.organization_id, w.id, coalesce(latest.number, 0) + 1,
        coalesce(o.version_id, latest.version_id), coalesce(o.preset_id, latest.preset_id),
        o.transition, o.reason, w.claim_generation, w.owner_id,
        -- Looked up one by one: how many orders there are cannot be planned for, and all users are many.
        (SELECT u.name FROM users AS u WHERE u.id = w.owner_id), w.name, o.initiator_id,
        coalesce(o.parameters, latest.parameters), coalesce(o.daily_cost, 0)
    FROM orders AS o
    JOIN workspaces AS w ON w.id = o.workspace_id
    LEFT JOIN builds AS latest ON latest.id = w.latest_build_id
    ORDER BY w.id
    RETURNING id, organization_id, workspace_id, version_id, preset_id, owner_id, number
),
job AS (
    INSERT INTO jobs (id, organization_id, workspace_id, build_id, backend, tags, priority, traceparent)
    SELECT
        o.job_id, b.organization_id, b.workspace_id, b.id,
        (SELECT v.backend FROM template_versions AS v WHERE v.id = b.version_id),
        coalesce(
            (
                SELECT jsonb_build_object('host', earlier.host)
                FROM builds AS earlier
                WHERE earlier.workspace_id = b.workspace_id AND earlier.host IS NOT NULL
                ORDER BY earlier.number DESC
                LIMIT 1
            ),
            '{}'
        ),
        o.priority, %(traceparent)s
    FROM build AS b
    JOIN orders AS o ON o.build_id = b.id
    RETURNING id, build_id, backend
)
UPDATE workspaces AS w
SET latest_build_id = b.id
FROM build AS b
JOIN job AS j ON j.build_id = b.id
WHERE w.id = b.workspace_id
RETURNING b.id AS build_id, j.id AS job_id, w.id AS workspace_id, w.organization_id, b.number, b.preset_id,
    b.owner_id
