-- Count the oldest events that are in no total yet, passing over those that another folder holds, and say how many.
WITH taken AS (
    SELECT e.id
    FROM pool_events AS e
    WHERE NOT e.is_counted
    ORDER BY e.id
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
),
marked AS (
    UPDATE pool_events AS e
    SET is_counted = true
    FROM taken
    WHERE e.id = taken.id
    RETURNING
        e.organization_id, e.template_id, e.preset_name, e.kind,
        CASE e.kind WHEN 'missed' THEN e.reason WHEN 'failed' THEN coalesce(e.failure_class, '') ELSE '' END AS label
),
added AS (
    -- One order for all folders: each waits only for totals behind those that it holds.
    INSERT INTO pool_event_totals AS t (template_id, preset_name, kind, label, organization_id, total)
    SELECT m.template_id, m.preset_name, m.kind, m.label, m.organization_id, count(*)
    FROM marked AS m
    GROUP BY m.template_id, m.preset_name, m.kind, m.label, m.organization_id
    ORDER BY m.template_id, m.preset_name, m.kind, m.label
    ON CONFLICT (template_id, preset_name, kind, label) DO UPDATE SET total = t.total + excluded.total
)
SELECT count(*) AS folded FROM marked
