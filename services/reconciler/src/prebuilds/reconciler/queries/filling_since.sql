-- Since when the templates have as many prebuilds starting as they have: when the newest of those was queued.
SELECT b.template_id, max(b.created_at) AS since
FROM prebuilds AS b
JOIN workspaces AS w ON w.id = b.workspace_id
JOIN jobs AS j ON j.build_id = w.latest_build_id
WHERE b.state = 'starting' AND b.template_id = ANY(%(template_ids)s) AND j.status <> 'canceling'
GROUP BY b.template_id
