"""What people narrow lists to, as statements take it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from prebuilds.domain.pools import PresetStatus


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events; what is None does not matter."""

    start: datetime | None = None
    """Not before this moment."""
    end: datetime | None = None
    """Before this moment."""
    actor: str | None = None
    """By name or id."""
    actor_kind: str | None = None
    action: str | None = None
    resource: str | None = None
    resource_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class PoolConditions:
    """Which pools of an organisation, by what their presets alone decide; what is None does not matter."""

    template: str | None = None
    """By name or id, as preset and version."""
    preset: str | None = None
    version: str | None = None
    is_active: bool | None = None
    status: PresetStatus | None = None
