"""A row of the outbox as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from prebuilds.domain.events import EventKind

Scalar: TypeAlias = str | int | float | bool | list[str] | None
"""What a payload holds: plain columns of the event's message, ids and times as text, and lists of ids."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event that is to be published."""

    id: UUID
    event: EventKind
    subject_id: UUID
    organization_id: UUID | None
    payload: Mapping[str, Scalar]
    traceparent: str | None
    created_at: datetime
