"""Subjects of events: `prebuilds.v1.<event>.<id>`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prebuilds.domain.events import EventKind

PREFIX: Final = "prebuilds.v1"
ALL_EVENTS: Final = f"{PREFIX}.>"

DEPLOYMENT: Final = UUID(int=0)
"""The id of what concerns the whole deployment; a subject spells it `deployment`."""

_DEPLOYMENT_WORD: Final = "deployment"
_PARTS: Final = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about."""

    event: EventKind
    subject_id: UUID


def format_subject(event: EventKind, subject_id: UUID) -> str:
    """Spell the subject of an event."""
    word = _DEPLOYMENT_WORD if subject_id == DEPLOYMENT else str(subject_id)
    return f"{PREFIX}.{event}.{word}"


def parse_subject(text: str) -> Subject | None:
    """Read a subject; None where this version knows no such event or it names no id."""
    parts = text.split(".")
    if len(parts) != _PARTS or f"{parts[0]}.{parts[1]}" != PREFIX:
        return None
    try:
        event = EventKind(parts[2])
        return Subject(event, DEPLOYMENT if parts[3] == _DEPLOYMENT_WORD else UUID(parts[3]))
    except ValueError:
        return None


def filter_subject(event: EventKind) -> str:
    """Spell what a consumer asks for to get all events of this kind."""
    return f"{PREFIX}.{event}.*"
