-- Read a preset's pool as a miss is explained by, and how many in it are eligible, locked by others or not.
SELECT
    preset.desired_instances IS NOT NULL AS has_pool,
    preset.status,
    preset.paused_at IS NOT NULL
        OR template.paused_at IS NOT NULL
        OR EXISTS (SELECT FROM settings WHERE key = 'reconciliation_pause') AS paused,
    pool.ready,
    pool.prebuilds,
    pool.eligible,
    (
        SELECT count(*)
        FROM prebuilds AS p
        WHERE p.template_id = template.id AND p.version_id <> preset.version_id
    ) AS older
FROM presets AS preset
JOIN templates AS template ON template.id = preset.template_id
CROSS JOIN LATERAL (
    SELECT
        count(*) AS prebuilds,
        count(p.ready_at) AS ready,
        count(*) FILTER (
            WHERE prebuild_is_eligible(p, preset, template, statement_timestamp(), live.gateways)
        ) AS eligible
    FROM prebuilds AS p
    CROSS JOIN (
        SELECT coalesce(array_agg(id), '{}') AS gateways
        FROM gateways
        WHERE seen_at > now() - interval '60 s'
    ) AS live
    WHERE p.preset_id = preset.id
) AS pool
WHERE preset.id = %(preset_id)s
