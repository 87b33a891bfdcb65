-- Read one page of the builds of a workspace, newest first.
SELECT
    b.id, b.organization_id, b.workspace_id, b.workspace_name, b.number, b.transition, b.reason,
    coalesce(b.outcome, j.status) AS status, b.version_id, version.name AS version_name, b.preset_id,
    preset.name AS preset_name, b.parameters, b.generation, b.owner_id, b.owner_name, b.initiator_id,
    initiator.name AS initiator_name, j.id AS job_id, b.failure_class, b.error, b.daily_cost, b.created_at,
    j.started_at, b.finished_at
FROM builds AS b
JOIN template_versions AS version ON version.id = b.version_id
JOIN users AS initiator ON initiator.id = b.initiator_id
LEFT JOIN jobs AS j ON j.build_id = b.id
LEFT JOIN presets AS preset ON preset.id = b.preset_id
WHERE b.workspace_id = %(workspace_id)s
    AND (%(build_id)s::uuid IS NULL OR b.id = %(build_id)s)
    AND (%(transition)s::text IS NULL OR b.transition = %(transition)s)
    AND (%(reason)s::text IS NULL OR b.reason = %(reason)s)
    AND (%(status)s::text IS NULL OR coalesce(b.outcome, j.status) = %(status)s)
    AND (%(after_time)s::timestamptz IS NULL OR (b.created_at, b.id) < (%(after_time)s, %(after_id)s::uuid))
ORDER BY b.created_at DESC, b.id DESC
LIMIT %(limit)s
