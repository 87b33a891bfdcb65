-- How often what happened to pools, by their names: the totals and what is in none yet, as one moment has them.
WITH counted AS (
    SELECT t.template_id, t.preset_name, t.kind, t.label, t.total
    FROM pool_event_totals AS t
    UNION ALL
    SELECT e.template_id, e.preset_name, e.kind, e.label, count(*) AS total
    FROM (
        SELECT
            u.template_id, u.preset_name, u.kind,
            CASE u.kind WHEN 'missed' THEN u.reason WHEN 'failed' THEN coalesce(u.failure_class, '') ELSE '' END AS label
        FROM pool_events AS u
        WHERE NOT u.is_counted
    ) AS e
    GROUP BY e.template_id, e.preset_name, e.kind, e.label
),
named AS (
    -- Names that some template has; one made again goes on where the deleted one of its name stopped.
    SELECT x.id, x.organization, x.template
    FROM (
        SELECT
            t.id, o.name AS organization, t.name AS template,
            bool_or(NOT (t.deleted OR o.deleted) OR t.id IN (SELECT b.template_id FROM prebuilds AS b))
                OVER (PARTITION BY o.name, t.name) AS is_present
        FROM templates AS t
        JOIN organizations AS o ON o.id = t.organization_id
    ) AS x
    WHERE x.is_present
)
-- Arrays, because rows of their own cost the reader more than all else does here.
SELECT
    n.organization, c.kind, c.label,
    array_agg(n.template) AS templates, array_agg(c.preset_name) AS presets, array_agg(c.total) AS totals
FROM counted AS c
JOIN named AS n ON n.id = c.template_id
GROUP BY n.organization, c.kind, c.label
