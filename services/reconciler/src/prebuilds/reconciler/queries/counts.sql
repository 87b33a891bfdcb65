-- Count the prebuilds of these pools as `rules.state.count` does.
WITH live AS (
    SELECT coalesce(array_agg(g.id), '{}') AS gateways
    FROM gateways AS g
    WHERE g.seen_at > now() - interval '60 s'
),
moving AS (
    SELECT b.preset_id, b.state, j.status, build.number = 1 AND j.attempt = 0 AS is_untouched
    FROM prebuilds AS b
    JOIN workspaces AS w ON w.id = b.workspace_id
    JOIN builds AS build ON build.id = w.latest_build_id
    JOIN jobs AS j ON j.build_id = build.id
    WHERE b.state IN ('starting', 'stopping', 'deleting') AND b.preset_id = ANY(%(preset_ids)s)
),
moved AS (
    SELECT
        m.preset_id,
        count(*) FILTER (WHERE m.state = 'starting' AND m.status <> 'canceling') AS starting,
        count(*) FILTER (WHERE m.state = 'starting' AND m.status = 'pending' AND m.is_untouched) AS queued,
        count(*) FILTER (WHERE m.state = 'stopping' AND m.status <> 'canceling') AS stopping,
        count(*) FILTER (WHERE m.state = 'deleting' AND m.status <> 'canceling') AS deleting
    FROM moving AS m
    GROUP BY m.preset_id
),
resting AS (
    SELECT
        b.preset_id,
        count(*) FILTER (WHERE b.state = 'running' AND b.delete_marked_at IS NULL) AS running,
        count(*) FILTER (
            WHERE b.state = 'running' AND b.delete_marked_at IS NULL
                AND (b.created_at < p.last_invalidated_at OR b.created_at + p.ttl < now())
        ) AS expired,
        count(*) FILTER (WHERE prebuild_is_eligible(b, p, t, now(), (SELECT live.gateways FROM live))) AS ready,
        count(*) FILTER (WHERE b.state = 'stopped') AS parked,
        count(*) FILTER (WHERE b.state IN ('failed', 'canceled')) AS failed
    FROM prebuilds AS b
    JOIN presets AS p ON p.id = b.preset_id
    JOIN templates AS t ON t.id = p.template_id
    WHERE b.preset_id = ANY(%(preset_ids)s)
    GROUP BY b.preset_id
)
SELECT
    r.preset_id, r.running, r.expired, r.ready, r.parked, r.failed,
    coalesce(m.starting, 0) AS starting, coalesce(m.queued, 0) AS queued,
    coalesce(m.stopping, 0) AS stopping, coalesce(m.deleting, 0) AS deleting
FROM resting AS r
LEFT JOIN moved AS m ON m.preset_id = r.preset_id
