-- Pools at their targets, with the past that they would have: presets of an active and of an earlier version, prebuilds
-- that are ready, workspaces that were claimed, failures on record. Every fifth preset has two schedules, every second
-- a ttl, every twentieth two failed builds within the last hour. Set-based; the rows are consistent as they are made,
-- so foreign keys are not checked one by one.
SET LOCAL session_replication_role = replica;
SET LOCAL work_mem = '256MB';

CREATE TEMP TABLE org ON COMMIT DROP AS
SELECT n, gen_random_uuid() AS id FROM generate_series(0, 7) AS n;

CREATE TEMP TABLE person ON COMMIT DROP AS
SELECT n, gen_random_uuid() AS id FROM generate_series(0, 99) AS n;

CREATE TEMP TABLE gateway ON COMMIT DROP AS
SELECT n, gen_random_uuid() AS id FROM generate_series(0, 1) AS n;

CREATE TEMP TABLE template ON COMMIT DROP AS
SELECT
    t.n, gen_random_uuid() AS id, org.id AS organization_id, gen_random_uuid() AS version_id,
    gen_random_uuid() AS earlier_version_id
FROM generate_series(0, (%(presets)s - 1) / %(presets_per_template)s) AS t (n)
JOIN org ON org.n = t.n %% 8;

-- The zone's hour at this moment decides which schedule holds: edges are hours away while the benchmark runs.
CREATE TEMP TABLE preset ON COMMIT DROP AS
SELECT
    p.n, gen_random_uuid() AS id, t.id AS template_id, t.organization_id, t.version_id, t.earlier_version_id,
    'preset-' || p.n AS name,
    CASE WHEN p.n %% 2 = 0 THEN interval '1 day' END AS ttl,
    p.n %% 5 = 0 AS has_schedules,
    zone.name AS timezone,
    extract(hour FROM now() AT TIME ZONE zone.name)::int AS hour,
    greatest(2, 1 + (extract(day FROM now())::int + 9 + p.n / 30 %% 12) %% 28) AS free_day
FROM generate_series(0, %(presets)s - 1) AS p (n)
JOIN template AS t ON t.n = p.n / %(presets_per_template)s
CROSS JOIN LATERAL (
    SELECT (ARRAY['Europe/Berlin', 'America/New_York', 'Asia/Kathmandu', 'UTC', 'Australia/Sydney', 'America/Santiago'])[
        1 + p.n / 5 %% 6
    ] AS name
) AS zone;

CREATE TEMP TABLE made ON COMMIT DROP AS
SELECT
    gen_random_uuid() AS id, gen_random_uuid() AS build_id, p.id AS preset_id, p.template_id, p.organization_id,
    p.version_id, p.ttl, p.name AS preset_name, kind.name AS kind, i,
    'prebuild-' || left(md5(random()::text), 15) AS name,
    (SELECT id FROM gateway WHERE gateway.n = (p.n + i) %% 2) AS gateway_id,
    CASE kind.name
        WHEN 'failed' THEN now() - interval '20 min' - i * random() * interval '15 min'
        WHEN 'claimed' THEN now() - interval '8 h' - random() * interval '14 h'
        ELSE now() - interval '10 min' - random() * interval '7 h'
    END AS created_at,
    person.id AS person_id, person.n AS person_number
FROM preset AS p
CROSS JOIN LATERAL (
    VALUES ('prebuild', %(prebuilds)s), ('claimed', 2), ('failed', CASE WHEN p.n %% 20 = 7 THEN 2 ELSE 0 END)
) AS kind (name, number)
CROSS JOIN LATERAL generate_series(1, kind.number) AS i
JOIN person ON person.n = (p.n * 7 + i) %% 100;

INSERT INTO organizations (id, name) SELECT id, 'org-' || n FROM org;

INSERT INTO users (id, issuer, subject, name) SELECT id, 'bench', 'person-' || n, 'person-' || n FROM person;

INSERT INTO organization_members (organization_id, user_id, roles)
SELECT org.id, person.id, '{member}'::text[] FROM org CROSS JOIN person
UNION ALL
SELECT org.id, %(system_user_id)s, '{}'::text[] FROM org;

INSERT INTO groups (organization_id, name) SELECT id, 'prebuilds' FROM org;

INSERT INTO group_members (group_id, user_id) SELECT id, %(system_user_id)s FROM groups;

-- They are seen until tomorrow: nobody refreshes them here.
INSERT INTO gateways (id, address, seen_at, live_since)
SELECT id, 'bench:' || n, now() + interval '1 day', now() - interval '1 day' FROM gateway;

INSERT INTO templates (id, organization_id, name, active_version_id)
SELECT id, organization_id, 'template-' || n, version_id FROM template;

INSERT INTO template_versions (
    id, organization_id, template_id, number, name, backend, agents, manifest, source_archive, created_by
)
SELECT
    version.id, t.organization_id, t.id, version.number, version.number::text, 'process', '{main}',
    '{"process": {"startup": "./startup.sh", "env": {}}}'::jsonb, sha256(version.id::text::bytea),
    (SELECT id FROM person WHERE n = 0)
FROM template AS t
CROSS JOIN LATERAL (VALUES (t.earlier_version_id, 1), (t.version_id, 2)) AS version (id, number);

INSERT INTO template_parameters (version_id, name, ordinal, type, default_value, mutable, options)
SELECT v.id, parameter.name, parameter.ordinal, 'string', 'none', false, '{}'
FROM template_versions AS v
CROSS JOIN (VALUES ('size', 0), ('region', 1), ('image', 2)) AS parameter (name, ordinal);

INSERT INTO presets (
    id, organization_id, template_id, version_id, name, is_default, desired_instances, ttl, timezone
)
SELECT
    id, organization_id, template_id, version_id, name, false,
    CASE WHEN has_schedules AND n %% 10 = 0 THEN 2 ELSE %(prebuilds)s END, ttl,
    CASE WHEN has_schedules THEN timezone ELSE '' END
FROM preset
UNION ALL
SELECT gen_random_uuid(), organization_id, template_id, earlier_version_id, name, false, %(prebuilds)s, ttl, ''
FROM preset;

INSERT INTO preset_parameters (preset_id, name, value)
SELECT id, 'size', 'size-' || row_number() OVER () %% 10 FROM presets;

-- Of every second one with schedules the first holds now, of the others none does. Hardly two presets have the same.
INSERT INTO preset_schedules (preset_id, ordinal, cron, instances)
SELECT
    p.id, schedule.ordinal,
    concat_ws(
        ' ', '*',
        (SELECT string_agg(((p.hour + ahead + 24) %% 24)::text, ',') FROM generate_series(low, high) AS ahead),
        '1-' || p.free_day - 1 || ',' || p.free_day + 1 || '-31', '*', '*'
    ),
    CASE WHEN p.n %% 10 = 0 AND schedule.ordinal = 0 THEN %(prebuilds)s ELSE 6 + p.n / 5 %% 97 END
FROM preset AS p
CROSS JOIN LATERAL (
    VALUES
        (0, CASE WHEN p.n %% 10 = 0 THEN -2 ELSE 4 END, CASE WHEN p.n %% 10 = 0 THEN 3 ELSE 7 END),
        (1, 9, 12)
) AS schedule (ordinal, low, high)
WHERE p.has_schedules;

INSERT INTO workspaces (
    id, organization_id, owner_id, name, template_id, claim_generation, handover_generation, latest_build_id,
    created_at, claimed_at, last_used_at
)
SELECT
    id, organization_id, CASE kind WHEN 'claimed' THEN person_id ELSE %(system_user_id)s END, name, template_id,
    (kind = 'claimed')::int, (kind = 'claimed')::int, build_id, created_at,
    CASE kind WHEN 'claimed' THEN created_at + interval '1 h' END,
    CASE kind WHEN 'claimed' THEN created_at + interval '1 h' END
FROM made;

-- First starts of all, and the claim build of what was claimed, which is the latest there.
INSERT INTO builds (
    id, organization_id, workspace_id, number, version_id, preset_id, transition, reason, generation, owner_id,
    owner_name, workspace_name, initiator_id, parameters, outcome, failure_class, provisioner_state, host, daily_cost,
    created_at, finished_at
)
SELECT
    CASE kind WHEN 'claimed' THEN gen_random_uuid() ELSE build_id END, organization_id, id, 1, version_id, preset_id,
    'start', 'prebuild', 0, %(system_user_id)s, 'prebuilds', name, %(system_user_id)s,
    '{"size": "size-1", "region": "none", "image": "none"}'::jsonb,
    CASE kind WHEN 'failed' THEN 'failed' ELSE 'succeeded' END,
    CASE kind WHEN 'failed' THEN CASE i WHEN 1 THEN 'template' ELSE 'infrastructure' END END,
    decode(repeat(md5(name), 8), 'hex'), 'host-1', 10, created_at, created_at + interval '2 min'
FROM made
UNION ALL
SELECT
    build_id, organization_id, id, 2, version_id, preset_id, 'start', 'claim', 1, person_id,
    'person-' || person_number, name, person_id, '{"size": "size-1", "region": "none", "image": "none"}'::jsonb, 'succeeded',
    NULL, decode(repeat(md5(name), 8), 'hex'), 'host-1', 10, created_at + interval '1 h', created_at + interval '61 min'
FROM made
WHERE kind = 'claimed';

INSERT INTO jobs (
    organization_id, workspace_id, build_id, backend, tags, priority, status, attempt, lease_id, lease_owner,
    created_at, started_at, finished_at
)
SELECT
    organization_id, workspace_id, id, 'process', '{"host": "host-1"}', 1, outcome, 1, gen_random_uuid(), 'key / daemon',
    created_at, created_at + interval '1 s', finished_at
FROM builds;

INSERT INTO agents (
    organization_id, workspace_id, name, token_key_id, incarnation, process, entry, state, gateway_id, connection_id,
    attempt, connected_at, created_at
)
SELECT
    organization_id, id, 'main', 'key-1', 1, left(md5(name), 16), 1, 'ready', gateway_id, gen_random_uuid(), 1,
    created_at + interval '3 min', created_at
FROM made
WHERE kind <> 'failed';

INSERT INTO prebuilds (
    workspace_id, organization_id, template_id, version_id, preset_id, state, created_at, ready_at, expires_at,
    daily_cost, gateways, failure_class
)
SELECT
    id, organization_id, template_id, version_id, preset_id, CASE kind WHEN 'failed' THEN 'failed' ELSE 'running' END,
    created_at, CASE kind WHEN 'prebuild' THEN created_at + interval '3 min' END, created_at + ttl, 10,
    CASE kind WHEN 'prebuild' THEN ARRAY[gateway_id] END,
    CASE kind WHEN 'failed' THEN CASE i WHEN 1 THEN 'template' ELSE 'infrastructure' END END
FROM made
WHERE kind <> 'claimed';

INSERT INTO pool_events (
    organization_id, template_id, preset_name, kind, reason, failure_class, workspace_id, user_id, is_counted, created_at
)
SELECT
    organization_id, template_id, preset_name, event.kind, '',
    CASE event.kind WHEN 'failed' THEN 'infrastructure' END, id,
    CASE event.kind WHEN 'claimed' THEN person_id END, true, created_at
FROM made
CROSS JOIN LATERAL (
    SELECT 'created' AS kind
    UNION ALL
    SELECT made.kind WHERE made.kind <> 'prebuild'
) AS event;

INSERT INTO pool_event_totals (template_id, preset_name, kind, label, organization_id, total)
SELECT template_id, preset_name, kind, coalesce(failure_class, ''), organization_id, count(*)
FROM pool_events
GROUP BY template_id, preset_name, kind, failure_class, organization_id;
