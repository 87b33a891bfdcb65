-- How many people's workspaces of a template exist, and how many prebuilds of it are there to drain or draining.
SELECT
    (
        SELECT count(*)
        FROM workspaces AS w
        WHERE w.organization_id = %(organization_id)s AND NOT w.deleted AND w.template_id = %(template_id)s
            AND NOT EXISTS (SELECT FROM prebuilds AS b WHERE b.workspace_id = w.id)
    ) AS workspaces,
    (
        SELECT count(*)
        FROM prebuilds AS b
        WHERE b.template_id = %(template_id)s AND b.state IN ('starting', 'running', 'deleting')
    ) AS prebuilds
