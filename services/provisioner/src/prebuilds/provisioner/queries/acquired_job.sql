-- Everything that is needed to do a job and that its template may see.
SELECT
    o.name AS organization_name, b.number, b.transition, b.reason, b.workspace_name, b.owner_id, b.owner_name,
    t.id AS template_id, t.name AS template_name, v.id AS version_id, v.name AS version_name, b.parameters,
    b.generation, v.source_archive, earlier.provisioner_state, j.tags ->> 'host' AS host
FROM jobs AS j
JOIN builds AS b ON b.id = j.build_id
JOIN organizations AS o ON o.id = j.organization_id
JOIN template_versions AS v ON v.id = b.version_id
JOIN templates AS t ON t.id = v.template_id
LEFT JOIN LATERAL (
    SELECT e.provisioner_state
    FROM builds AS e
    WHERE e.workspace_id = b.workspace_id AND e.number < b.number AND e.provisioner_state IS NOT NULL
    ORDER BY e.number DESC
    LIMIT 1
) AS earlier ON true
WHERE j.id = %(job_id)s
