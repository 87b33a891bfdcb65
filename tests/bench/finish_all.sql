-- Daemons and agents do all that is queued: starts become ready prebuilds, what is deleted is gone.
CREATE TEMP TABLE ended ON COMMIT DROP AS
SELECT id, workspace_id, transition FROM builds WHERE outcome IS NULL;

UPDATE builds AS b
SET outcome = 'succeeded', finished_at = now(), host = 'host-1', daily_cost = 10
FROM ended
WHERE b.id = ended.id;

UPDATE jobs AS j
SET status = 'succeeded', attempt = 1, lease_id = gen_random_uuid(), started_at = now(), finished_at = now()
FROM ended
WHERE j.build_id = ended.id;

UPDATE workspaces AS w
SET deleted = true, deleted_at = now()
FROM ended
WHERE w.id = ended.workspace_id AND ended.transition = 'delete';

DELETE FROM prebuilds AS b USING ended WHERE b.workspace_id = ended.workspace_id AND ended.transition = 'delete';

UPDATE agents AS a
SET state = 'ready', incarnation = 1, entry = 1, token_key_id = 'key-1', connected_at = now(), attempt = 1,
    gateway_id = (SELECT id FROM gateways ORDER BY id LIMIT 1), connection_id = gen_random_uuid()
FROM ended
WHERE a.workspace_id = ended.workspace_id AND ended.transition = 'start';

UPDATE prebuilds AS b
SET state = 'running', ready_at = now(), gateways = ARRAY[(SELECT id FROM gateways ORDER BY id LIMIT 1)], disconnected_at = NULL
FROM ended
WHERE b.workspace_id = ended.workspace_id AND ended.transition = 'start';
