-- Claim the best eligible prebuild of a preset for a person, with everything that a claim writes; each step that locks reads what the step before it returned, which fixes their order.
WITH request AS (
    INSERT INTO requests AS r (organization_id, principal, method, request_id, fingerprint, answer)
    SELECT
        %(organization_id)s, %(principal)s, %(method)s, %(request_id)s, %(fingerprint)s,
        jsonb_build_object('build_id', %(build_id)s::uuid)
    WHERE %(request_id)s <> ''
    ON CONFLICT (organization_id, principal, method, request_id) DO UPDATE
    SET fingerprint = excluded.fingerprint, answer = excluded.answer, created_at = excluded.created_at
    WHERE r.created_at < now() - interval '24 hours'
    RETURNING r.request_id
),
admitted AS (
    SELECT request_id FROM request
    UNION ALL
    SELECT '' WHERE %(request_id)s = ''
),
live AS MATERIALIZED (
    SELECT coalesce(array_agg(id), '{}') AS gateways
    FROM gateways
    WHERE seen_at > now() - interval '60 s'
),
picked AS (
    SELECT
        p.workspace_id, template.id AS template_id, preset.version_id, preset.id AS preset_id,
        preset.name AS preset_name, template.name AS template_name, template.claim_strategy
    FROM presets AS preset
    JOIN templates AS template ON template.id = preset.template_id
    CROSS JOIN LATERAL (
        SELECT p.workspace_id
        FROM prebuilds AS p
        WHERE p.preset_id = preset.id
            AND prebuild_is_eligible(p, preset, template, statement_timestamp(), (SELECT gateways FROM live))
        ORDER BY p.expires_at NULLS LAST, p.ready_at
        LIMIT 1
        FOR UPDATE OF p SKIP LOCKED
    ) AS p
    WHERE preset.id = %(preset_id)s AND EXISTS (SELECT FROM admitted)
),
taken AS (
    DELETE FROM prebuilds AS p
    USING picked
    WHERE p.workspace_id = picked.workspace_id
    RETURNING picked.*
),
owned AS (
    UPDATE workspaces AS w
    SET owner_id = %(owner_id)s,
        name = %(name)s,
        claim_generation = w.claim_generation + 1,
        handover_generation = CASE taken.claim_strategy
            WHEN 'instant' THEN w.claim_generation + 1 ELSE w.handover_generation
        END,
        claimed_at = now(),
        last_used_at = now(),
        ttl = %(ttl)s::interval,
        deadline = now() + %(ttl)s::interval,
        autostart = %(autostart)s,
        dormant_at = NULL,
        deleting_at = NULL,
        latest_build_id = %(build_id)s
    FROM taken
    WHERE w.id = taken.workspace_id
    RETURNING taken.*, w.claim_generation AS generation
),
build AS (
    INSERT INTO builds (
        id, organization_id, workspace_id, number, version_id, preset_id, transition, reason, generation,
        owner_id, owner_name, workspace_name, initiator_id, parameters, daily_cost, outcome, finished_at
    )
    SELECT
        %(build_id)s, latest.organization_id, owned.workspace_id, latest.number + 1, owned.version_id,
        owned.preset_id, 'start', 'claim', owned.generation, %(owner_id)s, %(owner_name)s, %(name)s, %(initiator_id)s,
        latest.parameters || %(parameters)s::jsonb, latest.daily_cost,
        CASE owned.claim_strategy WHEN 'instant' THEN 'succeeded' END,
        CASE owned.claim_strategy WHEN 'instant' THEN clock_timestamp() END
    FROM owned
    CROSS JOIN LATERAL (
        SELECT b.organization_id, b.number, b.parameters, b.daily_cost
        FROM builds AS b
        WHERE b.workspace_id = owned.workspace_id
        ORDER BY b.number DESC
        LIMIT 1
    ) AS latest
    RETURNING id, organization_id, workspace_id, number
),
job AS (
    INSERT INTO jobs (id, organization_id, workspace_id, build_id, backend, tags, priority, traceparent)
    SELECT
        %(job_id)s, build.organization_id, build.workspace_id, build.id, version.backend,
        coalesce(
            (
                SELECT jsonb_build_object('host', earlier.host)
                FROM builds AS earlier
                WHERE earlier.workspace_id = build.workspace_id AND earlier.host IS NOT NULL
                ORDER BY earlier.number DESC
                LIMIT 1
            ),
            '{}'
        ),
        %(priority)s, %(traceparent)s
    FROM build
    JOIN owned ON owned.workspace_id = build.workspace_id AND owned.claim_strategy = 'provision'
    JOIN template_versions AS version ON version.id = owned.version_id
    RETURNING id
),
claim AS (
    INSERT INTO claims (
        id, organization_id, workspace_id, user_id, preset_id, build_id, generation, state, requested_at,
        committed_at, handed_over_at
    )
    SELECT
        %(claim_id)s, build.organization_id, owned.workspace_id, %(owner_id)s, owned.preset_id, build.id,
        owned.generation,
        CASE owned.claim_strategy WHEN 'instant' THEN 'handing_over' ELSE 'building' END,
        %(requested_at)s, clock_timestamp(),
        CASE owned.claim_strategy WHEN 'instant' THEN clock_timestamp() END
    FROM owned
    JOIN build ON build.workspace_id = owned.workspace_id
    RETURNING id, workspace_id
),
pool_event AS (
    INSERT INTO pool_events (organization_id, template_id, preset_name, kind, workspace_id, user_id)
    SELECT %(organization_id)s, owned.template_id, owned.preset_name, 'claimed', owned.workspace_id, %(owner_id)s
    FROM owned
),
audit AS (
    INSERT INTO audit_log (
        organization_id, principal, principal_name, action, resource, resource_id, resource_name, details
    )
    SELECT
        %(organization_id)s, %(principal)s, %(principal_name)s, 'workspace.claim', 'workspace', owned.workspace_id, %(name)s,
        jsonb_build_object('template', owned.template_name, 'preset', owned.preset_name)
    FROM owned
),
news AS (
    INSERT INTO outbox (id, event, subject_id, organization_id, payload, traceparent)
    SELECT
        event.id, event.kind, event.subject_id, %(organization_id)s,
        jsonb_build_object(
            'workspace_id', owned.workspace_id, 'preset_id', owned.preset_id, 'template_id', owned.template_id,
            'claim_id', %(claim_id)s::uuid, 'generation', owned.generation
        ),
        %(traceparent)s
    FROM owned
    CROSS JOIN LATERAL (
        VALUES
            (%(claimed_event_id)s::uuid, 'claimed', owned.workspace_id),
            (
                %(second_event_id)s::uuid,
                CASE owned.claim_strategy WHEN 'instant' THEN 'handover_due' ELSE 'job_queued' END,
                CASE owned.claim_strategy WHEN 'instant' THEN owned.workspace_id ELSE %(job_id)s END
            )
    ) AS event (id, kind, subject_id)
    RETURNING id
)
SELECT
    EXISTS (SELECT FROM admitted) AS admitted,
    owned.workspace_id,
    owned.template_id,
    owned.preset_id,
    owned.generation,
    owned.claim_strategy,
    clock_timestamp() AS at
FROM (VALUES (1)) AS one
LEFT JOIN owned ON true
