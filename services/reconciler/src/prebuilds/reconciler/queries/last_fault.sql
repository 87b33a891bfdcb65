-- Give the error of the newest start build of a preset that failed by the template's fault.
SELECT b.error
FROM builds AS b
WHERE b.preset_id = %(preset_id)s AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
    AND b.failure_class = 'template'
ORDER BY b.created_at DESC
LIMIT 1
