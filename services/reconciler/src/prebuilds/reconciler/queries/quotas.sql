-- What the prebuilds of organisations whose group has an allowance may still cost, and what one more of each of these pools would.
WITH pool AS (
    SELECT p.id, p.organization_id, g.quota_allowance
    FROM presets AS p
    JOIN groups AS g ON g.organization_id = p.organization_id AND g.name = 'prebuilds'
    WHERE p.id = ANY(%(preset_ids)s) AND g.quota_allowance IS NOT NULL
),
used AS (
    SELECT b.organization_id, sum(b.daily_cost) AS daily_cost
    FROM prebuilds AS b
    WHERE b.organization_id IN (SELECT pool.organization_id FROM pool)
    GROUP BY b.organization_id
)
SELECT
    pool.id AS preset_id,
    pool.quota_allowance - coalesce(used.daily_cost, 0) AS room,
    coalesce(newest.daily_cost, 0) AS cost
FROM pool
LEFT JOIN used ON used.organization_id = pool.organization_id
LEFT JOIN LATERAL (
    SELECT b.daily_cost
    FROM builds AS b
    WHERE b.preset_id = pool.id AND b.transition = 'start' AND b.initiator_id = %(system_user_id)s
        AND b.outcome = 'succeeded'
    ORDER BY b.created_at DESC
    LIMIT 1
) AS newest ON true
