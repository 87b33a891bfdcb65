-- Every parameter of a preset's version, and whatever else the preset names, with the value that its prebuilds are built with; null where one is missing.
WITH declared AS (
    SELECT tp.name, tp.ordinal, tp.type, tp.options, tp.default_value
    FROM presets AS p
    JOIN template_parameters AS tp ON tp.version_id = p.version_id
    WHERE p.id = %(preset_id)s
),
fixed AS (
    SELECT pp.name, pp.value
    FROM preset_parameters AS pp
    WHERE pp.preset_id = %(preset_id)s
)
SELECT
    coalesce(declared.name, fixed.name) AS name, declared.type, coalesce(declared.options, '{}') AS options,
    coalesce(fixed.value, declared.default_value) AS value
FROM declared
FULL JOIN fixed ON fixed.name = declared.name
ORDER BY declared.ordinal, name
