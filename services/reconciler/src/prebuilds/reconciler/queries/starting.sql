-- How many prebuilds of these templates are starting, over all of their presets; the place of one being canceled is free.
SELECT b.template_id, count(*) AS starting
FROM prebuilds AS b
JOIN workspaces AS w ON w.id = b.workspace_id
JOIN jobs AS j ON j.build_id = w.latest_build_id
WHERE b.state = 'starting' AND b.template_id = ANY(%(template_ids)s) AND j.status <> 'canceling'
GROUP BY b.template_id
