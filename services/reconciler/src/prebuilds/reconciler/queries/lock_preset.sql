-- Lock a preset for the work on its pool, unless somebody else holds it.
SELECT id
FROM presets
WHERE id = %(preset_id)s
FOR NO KEY UPDATE SKIP LOCKED
