-- Find the prebuilds of a preset whose first start waits for a daemon and was never had by one: nothing was built.
SELECT b.workspace_id
FROM prebuilds AS b
JOIN workspaces AS w ON w.id = b.workspace_id
JOIN builds AS build ON build.id = w.latest_build_id
JOIN jobs AS j ON j.build_id = build.id
WHERE b.preset_id = %(preset_id)s AND b.state = 'starting'
    AND build.number = 1 AND build.transition = 'start' AND j.status = 'pending' AND j.attempt = 0
ORDER BY b.workspace_id
