-- Let a prebuild of every n-th preset that has a ttl be older than it.
UPDATE prebuilds AS b
SET created_at = b.created_at - p.ttl, expires_at = b.expires_at - p.ttl
FROM (SELECT id, ttl, row_number() OVER (ORDER BY id) AS n FROM presets WHERE id IN (SELECT preset_id FROM prebuilds)) AS p
WHERE p.n %% %(every)s = 0 AND p.ttl IS NOT NULL
    AND b.workspace_id = (
        SELECT one.workspace_id
        FROM prebuilds AS one
        WHERE one.preset_id = p.id AND one.state = 'running'
        ORDER BY one.created_at
        LIMIT 1
    )
