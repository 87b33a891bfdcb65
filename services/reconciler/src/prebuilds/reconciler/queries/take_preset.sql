-- Lock a preset for the work on its pool and put down when, unless somebody holds it, or has seen to it after this snapshot was taken.
WITH locked AS (
    SELECT p.id
    FROM presets AS p
    WHERE p.id = %(preset_id)s AND coalesce(p.reconciled_at <= %(seen_at)s, true)
    FOR NO KEY UPDATE SKIP LOCKED
),
marked AS (
    UPDATE presets
    SET reconciled_at = now()
    FROM locked
    WHERE presets.id = locked.id
    RETURNING presets.id
)
SELECT
    EXISTS (SELECT FROM marked) AS is_locked,
    EXISTS (
        SELECT FROM presets AS p WHERE p.id = %(preset_id)s AND p.reconciled_at > %(seen_at)s
    ) AS is_seen_to
