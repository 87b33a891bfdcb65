-- Name the presets with a pool that hints are about: active ones, and inactive ones that have prebuilds or are on record as over quota.
SELECT p.id
FROM (
    SELECT named.id
    FROM presets AS named
    WHERE named.id = ANY(%(preset_ids)s)
    UNION
    SELECT b.preset_id
    FROM prebuilds AS b
    WHERE b.workspace_id = ANY(%(workspace_ids)s)
    UNION
    SELECT of_template.id
    FROM templates AS named
    JOIN presets AS of_template ON of_template.template_id = named.id
    WHERE of_template.desired_instances IS NOT NULL
        AND (named.id = ANY(%(template_ids)s) OR named.organization_id = ANY(%(organization_ids)s))
    UNION
    SELECT neighbour.id
    FROM presets AS named
    JOIN templates AS bounded ON bounded.id = named.template_id AND bounded.max_starting IS NOT NULL
    JOIN presets AS neighbour ON neighbour.version_id = bounded.active_version_id
    WHERE named.id = ANY(%(neighbours_of)s)
    UNION
    SELECT neighbour.id
    FROM presets AS named
    JOIN presets AS neighbour ON neighbour.organization_id = named.organization_id
    WHERE named.id = ANY(%(neighbours_of)s) AND neighbour.over_quota_since IS NOT NULL
) AS hinted
JOIN presets AS p ON p.id = hinted.id
JOIN templates AS t ON t.id = p.template_id
WHERE (
        p.desired_instances IS NOT NULL AND t.active_version_id = p.version_id AND NOT t.deleted AND t.deprecated = ''
    )
    OR p.over_quota_since IS NOT NULL
    OR EXISTS (SELECT FROM prebuilds AS b WHERE b.preset_id = p.id)
