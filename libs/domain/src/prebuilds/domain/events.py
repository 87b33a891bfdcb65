"""The news that travels over JetStream (design section 7): each a hint to look at Postgres, never an instruction."""

from __future__ import annotations

from enum import StrEnum


class EventKind(StrEnum):
    """Second-last part of a subject, `prebuilds.v1.<kind>.<id>`."""

    CLAIMED = "claimed"
    HANDOVER_DUE = "handover_due"
    HANDOVER_ENDED = "handover_ended"
    AGENT_REVOKED = "agent_revoked"
    AGENT_READY = "agent_ready"
    ACKNOWLEDGED = "acknowledged"
    BUILD_CHANGED = "build_changed"
    JOB_QUEUED = "job_queued"
    TEMPLATE_CHANGED = "template_changed"
    SETTINGS_CHANGED = "settings_changed"
    NOTIFICATION = "notification"
