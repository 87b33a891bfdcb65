-- Every parameter of a preset's version with the value that its prebuilds are built with; null where one is missing.
SELECT tp.name, coalesce(pp.value, tp.default_value) AS value
FROM presets AS p
JOIN template_parameters AS tp ON tp.version_id = p.version_id
LEFT JOIN preset_parameters AS pp ON pp.preset_id = p.id AND pp.name = tp.name
WHERE p.id = %(preset_id)s
ORDER BY tp.ordinal
