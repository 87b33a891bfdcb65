-- Choose one page of the workspaces of an organisation, newest first.
SELECT w.id, w.created_at
FROM workspaces AS w
JOIN users AS owner ON owner.id = w.owner_id
JOIN templates AS t ON t.id = w.template_id
JOIN builds AS b ON b.id = w.latest_build_id
LEFT JOIN jobs AS j ON j.build_id = b.id
LEFT JOIN prebuilds AS p ON p.workspace_id = w.id
WHERE w.organization_id = %(organization_id)s
    AND (%(show_deleted)s OR NOT w.deleted)
    AND (%(only_owner_id)s::uuid IS NULL OR w.owner_id = %(only_owner_id)s)
    AND (%(name)s::text IS NULL OR w.name = %(name)s)
    AND (%(owner_id)s::uuid IS NULL OR w.owner_id = %(owner_id)s)
    AND (%(owner_name)s::text IS NULL OR owner.name = %(owner_name)s)
    AND (%(template_id)s::uuid IS NULL OR w.template_id = %(template_id)s)
    AND (%(template_name)s::text IS NULL OR t.name = %(template_name)s)
    AND (%(preset_id)s::uuid IS NULL OR b.preset_id = %(preset_id)s)
    AND (%(dormant)s::boolean IS NULL OR (w.dormant_at IS NOT NULL) = %(dormant)s)
    AND (%(is_prebuild)s::boolean IS NULL OR (p.workspace_id IS NOT NULL) = %(is_prebuild)s)
    AND (
        %(standings)s::text[] IS NULL
        OR CASE
            WHEN w.deleted THEN 'deleted'
            WHEN p.state = 'failed' AND b.outcome = 'succeeded' THEN 'dead'
            ELSE b.transition || ':' || coalesce(b.outcome, j.status)
        END = ANY(%(standings)s)
    )
    AND (%(after_time)s::timestamptz IS NULL OR (w.created_at, w.id) < (%(after_time)s, %(after_id)s::uuid))
ORDER BY w.created_at DESC, w.id DESC
LIMIT %(limit)s
