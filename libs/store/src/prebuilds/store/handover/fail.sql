-- End a claim whose build did not succeed; the person keeps the workspace.
UPDATE claims
SET state = 'failed', reason = %(reason)s, ended_at = clock_timestamp()
WHERE workspace_id = %(workspace_id)s AND state = 'building'
RETURNING id AS claim_id
