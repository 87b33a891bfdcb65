-- People by name or id; two may have one name.
SELECT u.id
FROM users AS u
WHERE NOT u.is_system AND (u.name = %(named)s OR u.id::text = %(named)s)
ORDER BY u.id
LIMIT 2
