-- A job as people see it.
SELECT
    j.id AS job_id, j.organization_id, j.build_id, j.workspace_id, b.workspace_name, t.name AS template_name,
    b.transition, b.reason, b.number, p.name AS preset_name, o.name AS organization_name, j.status, j.priority,
    j.backend, j.tags, j.attempt, j.lease_owner, j.lease_expires_at, j.cancel_requested_at, b.failure_class, j.error,
    j.created_at, j.started_at, j.finished_at
FROM jobs AS j
JOIN builds AS b ON b.id = j.build_id
JOIN organizations AS o ON o.id = j.organization_id
JOIN template_versions AS v ON v.id = b.version_id
JOIN templates AS t ON t.id = v.template_id
LEFT JOIN presets AS p ON p.id = b.preset_id
WHERE j.id = %(job_id)s
