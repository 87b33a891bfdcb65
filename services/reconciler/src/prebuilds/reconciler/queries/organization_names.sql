-- The names of all organisations, of deleted ones too.
SELECT o.id, o.name
FROM organizations AS o
