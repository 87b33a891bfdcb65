-- Set when a locked workspace was last used and when it is stopped by itself, for a build that a person asked for; never of a prebuild.
UPDATE workspaces
SET last_used_at = CASE %(transition)s WHEN 'start' THEN now() ELSE last_used_at END,
    dormant_at = CASE %(transition)s WHEN 'start' THEN NULL ELSE dormant_at END,
    deleting_at = CASE %(transition)s WHEN 'start' THEN NULL ELSE deleting_at END,
    deadline = CASE %(transition)s WHEN 'start' THEN now() + ttl END
WHERE id = %(workspace_id)s
    AND NOT EXISTS (SELECT FROM prebuilds WHERE workspace_id = %(workspace_id)s)
