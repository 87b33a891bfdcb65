-- Find what a creation is decided by: the organisation, the owner, and the template with the parameters and presets of its active version.
SELECT
    now() AS looked_at,
    o.id AS organization_id,
    o.name AS organization_name,
    owner.id AS owner_id,
    owner.name AS owner_name,
    t.id AS template_id,
    t.name AS template_name,
    t.deprecated,
    t.default_ttl,
    t.autostart,
    t.active_version_id AS version_id,
    (
        SELECT coalesce(jsonb_agg(
            jsonb_build_object(
                'name', p.name, 'type', p.type, 'default', p.default_value, 'mutable', p.mutable, 'options', p.options
            )
            ORDER BY p.ordinal
        ), '[]')
        FROM template_parameters AS p
        WHERE p.version_id = t.active_version_id
    ) AS parameters,
    (
        SELECT coalesce(jsonb_object_agg(e.spec ->> 'name', e.spec -> 'validation'), '{}')
        FROM template_versions AS m, jsonb_array_elements(m.manifest -> 'parameters') AS e (spec)
        WHERE m.id = t.active_version_id
            AND e.spec -> 'validation' <> 'null'
    ) AS validations,
    (
        SELECT coalesce(jsonb_agg(
            jsonb_build_object(
                'id', p.id, 'name', p.name, 'is_default', p.is_default, 'has_pool', p.desired_instances IS NOT NULL,
                'parameters', (
                    SELECT coalesce(jsonb_object_agg(v.name, v.value), '{}')
                    FROM preset_parameters AS v
                    WHERE v.preset_id = p.id
                )
            )
        ), '[]')
        FROM presets AS p
        WHERE p.version_id = t.active_version_id
    ) AS presets
FROM organizations AS o
LEFT JOIN LATERAL (
    SELECT u.id, u.name
    FROM users AS u
    WHERE (u.id = %(owner_id)s OR u.name = %(owner_name)s)
        AND NOT u.is_system
        AND (
            u.id = %(caller_id)s
            OR EXISTS (
                SELECT FROM organization_members AS m WHERE m.organization_id = o.id AND m.user_id = u.id
            )
        )
    ORDER BY u.id = %(caller_id)s DESC, u.created_at
    LIMIT 1
) AS owner ON true
LEFT JOIN templates AS t
    ON t.organization_id = o.id
    AND NOT t.deleted
    AND (t.id = %(template_id)s OR t.name = %(template_name)s)
WHERE (o.id = %(organization_id)s OR o.name = %(organization_name)s)
    AND NOT o.deleted
