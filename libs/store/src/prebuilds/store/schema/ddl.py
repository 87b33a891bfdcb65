"""What the models cannot say: functions of the database and the rows it begins with."""

from __future__ import annotations

from typing import Final

from sqlalchemy import DDL, event

from prebuilds.domain.ids import SYSTEM_USER_ID, SYSTEM_USER_NAME
from prebuilds.store.schema.base import Base

IS_ELIGIBLE: Final = """
CREATE FUNCTION prebuild_is_eligible(
    prebuild prebuilds, preset presets, template templates, at timestamptz, live_gateways uuid[]
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT prebuild.state = 'running'
        AND prebuild.ready_at IS NOT NULL
        AND prebuild.delete_marked_at IS NULL
        AND prebuild.gateways IS NOT NULL
        AND coalesce(prebuild.gateways <@ live_gateways, false)
        AND (prebuild.expires_at IS NULL OR at <= prebuild.expires_at)
        AND (preset.last_invalidated_at IS NULL OR prebuild.created_at >= preset.last_invalidated_at)
        AND template.active_version_id = prebuild.version_id
        AND NOT template.deleted
        AND template.deprecated = ''
$$
"""
"""What makes a prebuild eligible (behaviour section 6), written once; claim, snapshot and metrics call it.

A plain SQL function of one expression, which Postgres inlines, so that partial indexes still serve it. The coalesce
keeps the planner from guessing that hardly any array lies within another: it would then fetch and sort a whole pool
instead of reading one row by the index.
"""

SYSTEM_USER: Final = f"""
INSERT INTO users (id, issuer, subject, name, is_system)
VALUES ('{SYSTEM_USER_ID}', 'prebuilds', 'system', '{SYSTEM_USER_NAME}', true)
"""  # noqa: S608 - constants of this project

for _statement in (IS_ELIGIBLE, SYSTEM_USER):
    event.listen(Base.metadata, "after_create", DDL(_statement.replace("%", "%%")))
