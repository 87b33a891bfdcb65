-- Find a version of a workspace's template by id or name, and its parameters; without either, that of the latest build.
SELECT
    v.id AS version_id,
    v.name AS version_name,
    t.deleted AS template_deleted,
    b.parameters AS current,
    (
        SELECT coalesce(jsonb_agg(
            jsonb_build_object(
                'name', p.name, 'type', p.type, 'default', p.default_value, 'mutable', p.mutable, 'options', p.options
            )
            ORDER BY p.ordinal
        ), '[]')
        FROM template_parameters AS p
        WHERE p.version_id = v.id
    ) AS parameters,
    (
        SELECT coalesce(jsonb_object_agg(e.spec ->> 'name', e.spec -> 'validation'), '{}')
        FROM jsonb_array_elements(v.manifest -> 'parameters') AS e (spec)
        WHERE e.spec -> 'validation' <> 'null'
    ) AS validations,
    b.version_id = v.id AS is_current
FROM workspaces AS w
JOIN templates AS t ON t.id = w.template_id
JOIN builds AS b ON b.id = w.latest_build_id
LEFT JOIN template_versions AS v
    ON v.template_id = w.template_id
    AND CASE
        WHEN %(version_id)s::uuid IS NOT NULL THEN v.id = %(version_id)s
        WHEN %(version_name)s::text IS NOT NULL THEN v.name = %(version_name)s
        ELSE v.id = b.version_id
    END
WHERE w.id = %(workspace_id)s
