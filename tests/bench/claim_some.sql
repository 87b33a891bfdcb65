-- Claim prebuilds as people do: of every n-th preset, this many of each; they leave their pools.
WITH chosen AS (
    SELECT p.workspace_id
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM presets WHERE id IN (SELECT preset_id FROM prebuilds)) AS preset
    CROSS JOIN LATERAL (
        SELECT b.workspace_id
        FROM prebuilds AS b
        WHERE b.preset_id = preset.id AND b.state = 'running' AND b.delete_marked_at IS NULL
        ORDER BY b.created_at
        LIMIT %(claims)s
    ) AS p
    WHERE preset.n %% %(every)s = 0
),
taken AS (
    DELETE FROM prebuilds AS b USING chosen WHERE b.workspace_id = chosen.workspace_id RETURNING b.workspace_id
)
UPDATE workspaces AS w
SET owner_id = (SELECT id FROM users WHERE name = 'person-1'),
    claim_generation = 1, handover_generation = 1, claimed_at = now(), last_used_at = now()
FROM taken
WHERE w.id = taken.workspace_id
