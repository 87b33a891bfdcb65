"""The news that a build is no longer what it was; all who change one tell it alike."""

from __future__ import annotations

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import SYSTEM_USER_ID, BuildId, OrganizationId, PresetId, UserId, WorkspaceId
from prebuilds.store.outbox.writer import Event


def build_changed(
    workspace_id: WorkspaceId,
    organization_id: OrganizationId,
    *,
    build_id: BuildId,
    preset_id: PresetId | None,
    owner_id: UserId,
) -> Event:
    """Make the event. `owner_id` is the owner as of the build's queueing: what the system user owns is a prebuild."""
    payload = {
        "workspace_id": str(workspace_id),
        "build_id": str(build_id),
        "preset_id": str(preset_id) if preset_id else None,
        "is_prebuild": owner_id == SYSTEM_USER_ID,
    }
    return Event(EventKind.BUILD_CHANGED, workspace_id, organization_id, payload)
