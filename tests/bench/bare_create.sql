-- Everything that creating prebuilds writes, in one statement for each table: the floor of a pass that creates.
CREATE TEMP TABLE made ON COMMIT DROP AS
SELECT
    gen_random_uuid() AS id, gen_random_uuid() AS build_id, gen_random_uuid() AS job_id, p.id AS preset_id,
    p.template_id, p.organization_id, p.version_id, p.name AS preset_name
FROM generate_series(1, %(created)s) AS n
JOIN (
    SELECT presets.*, row_number() OVER () AS place
    FROM presets JOIN templates AS t ON t.active_version_id = presets.version_id
) AS p ON p.place = 1 + n %% (SELECT count(*) FROM templates JOIN presets ON version_id = active_version_id);

INSERT INTO workspaces (id, organization_id, owner_id, name, template_id)
SELECT m.id, m.organization_id, u.id, 'floor-' || m.id, m.template_id FROM made AS m JOIN users AS u ON u.is_system;

INSERT INTO prebuilds (workspace_id, organization_id, template_id, version_id, preset_id, state)
SELECT id, organization_id, template_id, version_id, preset_id, 'starting' FROM made;

INSERT INTO pool_events (organization_id, template_id, preset_name, kind, workspace_id)
SELECT organization_id, template_id, preset_name, 'created', id FROM made;

INSERT INTO builds (
    id, organization_id, workspace_id, number, version_id, preset_id, transition, reason, generation, owner_id,
    owner_name, workspace_name, initiator_id, parameters
)
SELECT
    m.build_id, m.organization_id, m.id, 1, m.version_id, m.preset_id, 'start', 'prebuild', 0, u.id, u.name,
    'floor-' || m.id, u.id, '{"size": "size-1", "region": "none", "image": "none"}'
FROM made AS m
JOIN users AS u ON u.is_system;

INSERT INTO jobs (id, organization_id, workspace_id, build_id, backend, priority)
SELECT job_id, organization_id, id, build_id, 'process', 1 FROM made;

UPDATE workspaces AS w SET latest_build_id = m.build_id FROM made AS m WHERE w.id = m.id;

INSERT INTO agents (organization_id, workspace_id, name) SELECT organization_id, id, 'main' FROM made;

INSERT INTO outbox (event, subject_id, organization_id, payload)
SELECT 'job_queued', job_id, organization_id, jsonb_build_object('workspace_id', id, 'build_id', build_id) FROM made;
