-- Make the system user a member of each organisation with a preset that takes part in prebuilds, and make its group.
WITH taking_part AS (
    SELECT DISTINCT t.organization_id
    FROM presets AS p
    JOIN templates AS t ON t.id = p.template_id AND t.active_version_id = p.version_id
    JOIN organizations AS o ON o.id = t.organization_id
    WHERE p.desired_instances IS NOT NULL AND NOT t.deleted AND t.deprecated = '' AND NOT o.deleted
),
joined AS (
    INSERT INTO organization_members (organization_id, user_id, roles)
    SELECT x.organization_id, %(user_id)s, '{}'
    FROM taking_part AS x
    WHERE NOT EXISTS (
        SELECT FROM organization_members AS m
        WHERE m.organization_id = x.organization_id AND m.user_id = %(user_id)s
    )
    ORDER BY x.organization_id
    ON CONFLICT (organization_id, user_id) DO NOTHING
    RETURNING organization_id
),
made AS (
    INSERT INTO groups (organization_id, name)
    SELECT x.organization_id, %(group_name)s
    FROM taking_part AS x
    WHERE NOT EXISTS (
        SELECT FROM groups AS g WHERE g.organization_id = x.organization_id AND g.name = %(group_name)s
    )
    ORDER BY x.organization_id
    ON CONFLICT (organization_id, name) DO NOTHING
    RETURNING organization_id
)
SELECT (SELECT count(*) FROM joined) AS memberships, (SELECT count(*) FROM made) AS groups
