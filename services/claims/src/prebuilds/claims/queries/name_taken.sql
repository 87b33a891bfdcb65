-- Tell whether a person has a workspace of this name.
SELECT EXISTS (SELECT FROM workspaces WHERE owner_id = %(owner_id)s AND name = %(name)s AND NOT deleted) AS taken
