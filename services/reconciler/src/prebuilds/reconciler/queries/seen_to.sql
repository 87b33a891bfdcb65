-- Which of these presets somebody has seen to after that moment.
SELECT p.id
FROM presets AS p
WHERE p.id = ANY(%(preset_ids)s) AND p.reconciled_at > %(seen_at)s
