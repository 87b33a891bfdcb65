-- Lock a build and then its job, whose pool row and workspace the caller has locked; the last two steps of the order from the other end.
WITH build AS (
    SELECT id, number, transition, reason, generation, version_id, preset_id, initiator_id, owner_id
    FROM builds
    WHERE id = %(build_id)s
    FOR NO KEY UPDATE
)
SELECT
    j.id AS job_id, b.id AS build_id, j.workspace_id, j.organization_id, b.number, b.transition, b.reason,
    b.generation, b.version_id, b.preset_id, b.initiator_id, b.owner_id, j.backend, j.tags, j.status, j.attempt,
    j.lease_id, j.lease_expires_at, j.cancel_requested_at, j.created_at, j.traceparent,
    clock_timestamp() AS looked_at
FROM build AS b
JOIN jobs AS j ON j.build_id = b.id
FOR NO KEY UPDATE OF j
