-- Read one page of claims of one organisation, newest first; or the one of that id, wherever it is.
SELECT
    c.id, c.organization_id, c.workspace_id, b.workspace_name, c.user_id AS owner_id, b.owner_name, c.preset_id,
    preset.name AS preset_name, preset.template_id, t.name AS template_name, c.build_id, c.generation, c.state,
    c.outcome, c.reason, c.state = 'handing_over' AND c.handed_over_at < now() - interval '60 s' AS overdue,
    c.requested_at, c.committed_at, c.handed_over_at, c.acknowledged_at, c.ended_at
FROM claims AS c
JOIN builds AS b ON b.id = c.build_id
JOIN presets AS preset ON preset.id = c.preset_id
JOIN templates AS t ON t.id = preset.template_id
WHERE (c.organization_id = %(organization_id)s OR c.id = %(claim_id)s)
    AND (%(only_owner_id)s::uuid IS NULL OR c.user_id = %(only_owner_id)s)
    AND (%(owner_id)s::uuid IS NULL OR c.user_id = %(owner_id)s)
    AND (%(owner_name)s::text IS NULL OR b.owner_name = %(owner_name)s)
    AND (%(state)s::text IS NULL OR c.state = %(state)s)
    AND (
        NOT %(unacknowledged)s
        OR (c.state = 'handing_over' AND c.handed_over_at < now() - interval '60 s')
    )
    AND (%(workspace_id)s::uuid IS NULL OR c.workspace_id = %(workspace_id)s)
    AND (%(template_id)s::uuid IS NULL OR t.id = %(template_id)s)
    AND (%(template_name)s::text IS NULL OR t.name = %(template_name)s)
    AND (%(preset_id)s::uuid IS NULL OR c.preset_id = %(preset_id)s)
    AND (%(after_time)s::timestamptz IS NULL OR (c.committed_at, c.id) < (%(after_time)s, %(after_id)s::uuid))
ORDER BY c.committed_at DESC, c.id DESC
LIMIT %(limit)s
