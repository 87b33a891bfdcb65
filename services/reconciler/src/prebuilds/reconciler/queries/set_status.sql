-- Set the status of a locked preset, and why it is so, for people.
UPDATE presets
SET status = %(status)s, status_since = now(), status_message = %(message)s
WHERE id = %(preset_id)s
