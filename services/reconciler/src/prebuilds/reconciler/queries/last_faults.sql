-- Give the error of the newest start build of each of these presets that failed by the template's fault.
SELECT p.id AS preset_id, newest.error
FROM presets AS p
CROSS JOIN LATERAL (
    SELECT b.error
    FROM builds AS b
    WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
        AND b.failure_class = 'template'
    ORDER BY b.created_at DESC
    LIMIT 1
) AS newest
WHERE p.id = ANY(%(preset_ids)s)
