-- Let whoever connects from now on begin with the current manifest, and end the claims still being handed over.
WITH workspace AS (
    UPDATE workspaces
    SET handover_generation = claim_generation
    WHERE id = ANY(%(workspace_ids)s) AND claim_generation > 0
    RETURNING id
)
UPDATE claims AS c
SET state = 'superseded', reason = %(reason)s, ended_at = clock_timestamp()
FROM workspace AS w
WHERE c.workspace_id = w.id AND c.state = 'handing_over'
RETURNING c.id AS claim_id, c.workspace_id, c.organization_id
