-- Make the handover of a locked workspace due: from now on its agents get the manifest of the claim.
WITH workspace AS (
    UPDATE workspaces
    SET handover_generation = claim_generation
    WHERE id = %(workspace_id)s
    RETURNING id, claim_generation
)
UPDATE claims AS c
SET state = 'handing_over', handed_over_at = clock_timestamp()
FROM workspace AS w
WHERE c.workspace_id = w.id AND c.generation = w.claim_generation AND c.state = 'building'
RETURNING c.id AS claim_id
