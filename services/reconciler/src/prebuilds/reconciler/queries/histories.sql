-- Recent start builds of these presets by the system user; rows only for presets with a failure within the lookback, or of a hard-limited status.
SELECT
    p.id AS preset_id,
    coalesce(recent.failed, 0) AS failed,
    recent.last_failed_at,
    CASE WHEN recent.last_failed_at IS NOT NULL THEN (
        SELECT count(*) + 1
        FROM builds AS b
        WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
            AND b.created_at > recent.last_failed_at
    ) END AS newest_failed_rank,
    (
        SELECT count(*) FILTER (WHERE newest.faults = newest.place)
        FROM (
            SELECT
                row_number() OVER (ORDER BY b.created_at DESC, b.id) AS place,
                count(*) FILTER (WHERE b.outcome = 'failed' AND b.failure_class = 'template')
                    OVER (ORDER BY b.created_at DESC, b.id) AS faults
            FROM (
                SELECT b.id, b.created_at, b.outcome, b.failure_class
                FROM builds AS b
                WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
                    AND b.outcome IS DISTINCT FROM 'canceled'
                ORDER BY b.created_at DESC, b.id
                LIMIT %(hard_limit)s
            ) AS b
        ) AS newest
    ) AS template_faults_in_a_row,
    (
        SELECT max(b.created_at)
        FROM builds AS b
        WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
    ) AS newest_at
FROM presets AS p
CROSS JOIN LATERAL (
    SELECT count(*) AS failed, max(b.created_at) AS last_failed_at
    FROM builds AS b
    WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
        AND b.created_at > now() - %(lookback)s::interval AND b.outcome = 'failed'
) AS recent
WHERE p.id = ANY(%(preset_ids)s) AND (recent.failed > 0 OR p.status = 'hard_limited')
