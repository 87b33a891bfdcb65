-- Acknowledge the claim of a locked workspace once every agent has ended its startup in the generation handed over.
UPDATE claims AS c
SET state = 'acknowledged', outcome = agents.worst, acknowledged_at = clock_timestamp(), ended_at = clock_timestamp()
FROM workspaces AS w
JOIN organizations AS o ON o.id = w.organization_id
JOIN templates AS t ON t.id = w.template_id
CROSS JOIN LATERAL (
    SELECT
        bool_and(
            a.generation = w.handover_generation AND a.state IN ('ready', 'start_error', 'start_timeout')
        ) AS all_ended,
        CASE
            WHEN bool_or(a.state = 'start_error') THEN 'start_error'
            WHEN bool_or(a.state = 'start_timeout') THEN 'start_timeout'
            ELSE 'ready'
        END AS worst
    FROM agents AS a
    WHERE a.workspace_id = w.id AND NOT a.retired
) AS agents
WHERE w.id = %(workspace_id)s
    AND c.workspace_id = w.id
    AND c.state = 'handing_over'
    AND c.generation = w.handover_generation
    AND agents.all_ended
RETURNING
    c.id AS claim_id, c.outcome, c.acknowledged_at - c.committed_at AS took, o.name AS organization,
    t.name AS template, (SELECT p.name FROM presets AS p WHERE p.id = c.preset_id) AS preset
