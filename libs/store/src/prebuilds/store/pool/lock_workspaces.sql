-- Lock these workspaces in the order of their ids, after their pool rows, and read them as they are now.
SELECT
    id AS workspace_id, organization_id, owner_id, name, template_id, claim_generation, handover_generation,
    latest_build_id, deleted
FROM workspaces
WHERE id = ANY(ARRAY(SELECT unnest(%(workspace_ids)s::uuid[])))
ORDER BY id
FOR NO KEY UPDATE
