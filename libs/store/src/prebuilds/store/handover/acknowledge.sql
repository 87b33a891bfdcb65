-- Acknowledge the claim of a locked workspace once every agent has ended its startup in the generation handed over.
UPDATE claims AS c
SET state = 'acknowledged', outcome = agents.worst, acknowledged_at = clock_timestamp(), ended_at = clock_timestamp()
FROM workspaces AS w
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
RETURNING c.id AS claim_id, c.outcome
