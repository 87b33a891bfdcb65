-- Read, for these agents at once, all that decides what their streams get, and what a Reinit says where one is due.
SELECT
    a.id AS agent_id, a.workspace_id, a.token_key_id, a.token_epoch, a.retired, w.deleted, a.incarnation, a.generation,
    a.attempt, a.gateway_id, a.connection_id, w.owner_id, w.claim_generation, w.handover_generation,
    p.workspace_id IS NOT NULL OR open.id IS NOT NULL AS is_tracked,
    due.id AS claim_id, build.owner_id AS new_owner_id, build.owner_name AS new_owner_name
FROM unnest(%(agent_ids)s::uuid[]) AS asked (agent_id)
JOIN agents AS a ON a.id = asked.agent_id
JOIN workspaces AS w ON w.id = a.workspace_id
LEFT JOIN prebuilds AS p ON p.workspace_id = w.id
LEFT JOIN claims AS open ON open.workspace_id = w.id AND open.state IN ('building', 'handing_over')
LEFT JOIN claims AS due
    ON due.workspace_id = w.id AND due.generation = w.handover_generation AND a.generation < w.handover_generation
LEFT JOIN builds AS build ON build.id = due.build_id
