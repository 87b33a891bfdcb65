-- How many prebuilds of these templates are starting, over all of their presets.
SELECT b.template_id, count(*) AS starting
FROM prebuilds AS b
WHERE b.state = 'starting' AND b.template_id = ANY(%(template_ids)s)
GROUP BY b.template_id
