-- Move a locked pool row to the state that its finished build leaves it in.
UPDATE prebuilds
SET state = %(state)s::text,
    failure_class = %(failure_class)s,
    daily_cost = coalesce(%(daily_cost)s, daily_cost),
    ready_at = CASE WHEN %(state)s::text = 'running' THEN ready_at END
WHERE workspace_id = %(workspace_id)s
RETURNING preset_id, template_id, organization_id
