-- Count the running prebuilds of these presets that are not expired yet.
SELECT count(*)
FROM prebuilds AS b
JOIN presets AS p ON p.id = b.preset_id
WHERE b.preset_id = ANY(%(preset_ids)s) AND b.state = 'running' AND b.delete_marked_at IS NULL
    AND (p.last_invalidated_at IS NULL OR b.created_at >= p.last_invalidated_at)
    AND (p.ttl IS NULL OR b.created_at + p.ttl >= now())
