-- Put on record since when a locked preset is kept from its target by the allowance, or that it is no more.
UPDATE presets
SET over_quota_since = CASE WHEN %(is_over_quota)s THEN coalesce(over_quota_since, now()) END
WHERE id = %(preset_id)s
