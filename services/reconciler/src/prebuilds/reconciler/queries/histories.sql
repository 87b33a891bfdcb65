-- Recent start builds of these presets by the system user, canceled ones aside; rows only for presets with a failure that may count, or hard limited.
SELECT
    p.id AS preset_id,
    recent.failed,
    recent.last_failed_at,
    CASE WHEN recent.last_failed_at IS NOT NULL THEN (
        SELECT count(*) + 1
        FROM builds AS b
        WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
            AND b.created_at > recent.last_failed_at AND b.outcome IS DISTINCT FROM 'canceled'
    ) END AS newest_failed_rank,
    (
        -- Of builds queued together those that did not fail by the template's fault come first.
        SELECT count(*) FILTER (WHERE counted.faults = counted.place)
        FROM (
            SELECT
                row_number() OVER inwards AS place,
                count(*) FILTER (WHERE b.is_fault) OVER inwards AS faults
            FROM (
                SELECT b.id, b.created_at, b.failure_class IS NOT DISTINCT FROM 'template' AS is_fault
                FROM builds AS b
                WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
                    AND b.outcome IS DISTINCT FROM 'canceled'
                ORDER BY b.created_at DESC, is_fault, b.id
                LIMIT %(hard_limit)s
            ) AS b
            WINDOW inwards AS (ORDER BY b.created_at DESC, b.is_fault, b.id)
        ) AS counted
    ) AS template_faults_in_a_row,
    (
        SELECT b.created_at
        FROM builds AS b
        WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
            AND b.outcome IS DISTINCT FROM 'canceled' AND b.failure_class IS DISTINCT FROM 'infrastructure'
        ORDER BY b.created_at DESC
        LIMIT 1
    ) AS newest_at,
    p.status = 'hard_limited' AND EXISTS (
        SELECT
        FROM builds AS b
        JOIN workspaces AS w ON w.id = b.workspace_id
        LEFT JOIN prebuilds AS r ON r.workspace_id = w.id
        WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
            AND b.created_at >= p.retry_requested_at AND b.outcome = 'succeeded'
            AND (r.ready_at IS NOT NULL OR w.claim_generation > 0)
            -- A preset that was limited anew since has to be retried anew.
            AND NOT EXISTS (
                SELECT
                FROM builds AS later
                WHERE later.preset_id = p.id AND later.transition = 'start'
                    AND later.initiator_id = %(system_user_id)s AND later.created_at > b.created_at
                    AND later.failure_class = 'template'
            )
    ) AS retry_succeeded
FROM presets AS p
CROSS JOIN LATERAL (
    SELECT b.created_at, b.failure_class
    FROM builds AS b
    WHERE b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
        AND b.outcome IS DISTINCT FROM 'canceled'
    ORDER BY b.created_at DESC
    LIMIT 1
) AS newest
CROSS JOIN LATERAL (
    -- Not even looked for where the newest start is older than the lookback.
    SELECT count(*) AS failed, max(b.created_at) AS last_failed_at
    FROM builds AS b
    WHERE newest.created_at > now() - %(lookback)s::interval
        AND b.preset_id = p.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
        AND b.created_at > now() - %(lookback)s::interval AND b.outcome = 'failed'
) AS recent
WHERE p.id = ANY(%(preset_ids)s)
    AND (
        -- Few presets have any failure at all.
        p.status = 'hard_limited'
        OR EXISTS (
            SELECT
            FROM builds AS failure
            WHERE failure.preset_id = p.id AND failure.transition = 'start'
                AND failure.initiator_id = %(system_user_id)s AND failure.outcome = 'failed'
        )
    )
    -- A fault of the template counts for the hard limit however old it is.
    AND (recent.failed > 0 OR newest.failure_class = 'template' OR p.status = 'hard_limited')
