-- Make the workspaces of new prebuilds and their rows in the pool of one preset; the builds follow in the same transaction. Their age is that of this statement: the transaction may have begun before an invalidation that the caller has seen.
WITH wanted AS (
    SELECT *
    FROM unnest(%(workspace_ids)s::uuid[], %(names)s::text[]) AS w (id, name)
),
preset AS (
    SELECT id, organization_id, template_id, version_id, ttl
    FROM presets
    WHERE id = %(preset_id)s
),
workspace AS (
    INSERT INTO workspaces (id, organization_id, owner_id, name, template_id)
    SELECT wanted.id, preset.organization_id, %(owner_id)s, wanted.name, preset.template_id
    FROM wanted
    CROSS JOIN preset
    RETURNING id
)
INSERT INTO prebuilds (
    workspace_id, organization_id, template_id, version_id, preset_id, state, created_at, expires_at, disconnected_at,
    daily_cost
)
SELECT
    workspace.id, preset.organization_id, preset.template_id, preset.version_id, preset.id, 'starting',
    statement_timestamp(), statement_timestamp() + preset.ttl, statement_timestamp(), %(daily_cost)s
FROM workspace
CROSS JOIN preset
