-- Make new prebuilds of one preset with all that belongs to them: workspaces, rows in the pool and its history, first builds with their jobs and agents, and the news of the jobs. Their age in the pool is that of this statement: the transaction may have begun before an invalidation that the caller has seen.
WITH wanted AS (
    SELECT *
    FROM unnest(
        %(workspace_ids)s::uuid[], %(names)s::text[], %(build_ids)s::uuid[], %(job_ids)s::uuid[], %(event_ids)s::uuid[]
    ) AS w (workspace_id, name, build_id, job_id, event_id)
),
preset AS (
    SELECT
        p.id, p.organization_id, p.template_id, p.version_id, p.name AS preset_name, p.ttl, v.backend, v.agents,
        u.id AS owner_id, u.name AS owner_name
    FROM presets AS p
    JOIN template_versions AS v ON v.id = p.version_id
    JOIN users AS u ON u.id = %(owner_id)s
    WHERE p.id = %(preset_id)s
),
made AS (
    SELECT wanted.*, preset.*
    FROM wanted
    CROSS JOIN preset
),
workspace AS (
    INSERT INTO workspaces (id, organization_id, owner_id, name, template_id, latest_build_id)
    SELECT made.workspace_id, made.organization_id, made.owner_id, made.name, made.template_id, made.build_id
    FROM made
),
prebuild AS (
    INSERT INTO prebuilds (
        workspace_id, organization_id, template_id, version_id, preset_id, state, created_at, expires_at,
        disconnected_at, daily_cost
    )
    SELECT
        made.workspace_id, made.organization_id, made.template_id, made.version_id, made.id, 'starting',
        statement_timestamp(), statement_timestamp() + made.ttl, statement_timestamp(), %(daily_cost)s
    FROM made
),
pool_event AS (
    INSERT INTO pool_events (organization_id, template_id, preset_name, kind, reason, workspace_id)
    SELECT made.organization_id, made.template_id, made.preset_name, 'created', %(reason)s, made.workspace_id
    FROM made
),
build AS (
    INSERT INTO builds (
        id, organization_id, workspace_id, number, version_id, preset_id, transition, reason, generation, owner_id,
        owner_name, workspace_name, initiator_id, parameters, daily_cost
    )
    SELECT
        made.build_id, made.organization_id, made.workspace_id, 1, made.version_id, made.id, 'start', 'prebuild', 0,
        made.owner_id, made.owner_name, made.name, made.owner_id, %(parameters)s, %(daily_cost)s
    FROM made
),
job AS (
    INSERT INTO jobs (id, organization_id, workspace_id, build_id, backend, priority, traceparent)
    SELECT
        made.job_id, made.organization_id, made.workspace_id, made.build_id, made.backend, %(priority)s,
        %(traceparent)s
    FROM made
),
agent AS (
    INSERT INTO agents (organization_id, workspace_id, name)
    SELECT made.organization_id, made.workspace_id, agent.name
    FROM made
    CROSS JOIN LATERAL unnest(made.agents) AS agent (name)
),
news AS (
    INSERT INTO outbox (id, event, subject_id, organization_id, payload, traceparent)
    SELECT
        made.event_id, 'job_queued', made.job_id, made.organization_id,
        jsonb_build_object('workspace_id', made.workspace_id, 'build_id', made.build_id), %(traceparent)s
    FROM made
)
SELECT clock_timestamp() AS at
