-- Name a preset as its history is kept: by template and preset name.
SELECT organization_id, template_id, version_id, id AS preset_id, name AS preset_name
FROM presets
WHERE id = %(preset_id)s
