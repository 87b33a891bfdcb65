-- Find whose a workspace is, without any lock, so that access can be decided and the locks taken in their order.
SELECT
    w.organization_id, w.owner_id, w.name, w.deleted, p.workspace_id IS NOT NULL AS is_prebuild
FROM workspaces AS w
LEFT JOIN prebuilds AS p ON p.workspace_id = w.id
WHERE w.id = %(workspace_id)s
