-- Name the pool that a prebuild belongs to.
SELECT p.organization_id, p.template_id, p.version_id, p.preset_id, preset.name AS preset_name
FROM prebuilds AS p
JOIN presets AS preset ON preset.id = p.preset_id
WHERE p.workspace_id = %(workspace_id)s
