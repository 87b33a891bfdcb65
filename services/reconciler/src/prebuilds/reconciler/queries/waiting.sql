-- How many people wait in the lines of these presets.
SELECT w.preset_id, count(*) AS people
FROM waiting AS w
WHERE w.preset_id = ANY(%(preset_ids)s) AND w.lease_expires_at > now()
GROUP BY w.preset_id
