"""Bodies and headers of events: from a row of the outbox to the wire, and from the wire to a reader's hint.

Both directions forgive. Writers and readers are of different versions during a rollout, and an event is only a hint to
look: what a body does not say, Postgres does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias, cast
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId
from prebuilds.events.subjects import format_subject, parse_subject
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.v1 import event_pb2

EventMessage: TypeAlias = (
    event_pb2.Claimed
    | event_pb2.HandoverDue
    | event_pb2.HandoverEnded
    | event_pb2.AgentRevoked
    | event_pb2.AgentReady
    | event_pb2.Acknowledged
    | event_pb2.BuildChanged
    | event_pb2.JobQueued
    | event_pb2.TemplateChanged
    | event_pb2.SettingsChanged
    | event_pb2.NotificationAdded
)

MESSAGE_ID: Final = "Nats-Msg-Id"
TRACEPARENT: Final = "traceparent"
CONTENT_TYPE: Final = "content-type"

STALE_AFTER: Final = timedelta(minutes=1)
"""Older hints are dropped: whoever missed them has long looked by itself."""

MESSAGES: Final[Mapping[EventKind, type[EventMessage]]] = {
    EventKind.CLAIMED: event_pb2.Claimed,
    EventKind.HANDOVER_DUE: event_pb2.HandoverDue,
    EventKind.HANDOVER_ENDED: event_pb2.HandoverEnded,
    EventKind.AGENT_REVOKED: event_pb2.AgentRevoked,
    EventKind.AGENT_READY: event_pb2.AgentReady,
    EventKind.ACKNOWLEDGED: event_pb2.Acknowledged,
    EventKind.BUILD_CHANGED: event_pb2.BuildChanged,
    EventKind.JOB_QUEUED: event_pb2.JobQueued,
    EventKind.TEMPLATE_CHANGED: event_pb2.TemplateChanged,
    EventKind.SETTINGS_CHANGED: event_pb2.SettingsChanged,
    EventKind.NOTIFICATION: event_pb2.NotificationAdded,
}

_SUBJECT_FIELDS: Final[Mapping[EventKind, str | None]] = {
    **dict.fromkeys(EventKind, "workspace_id"),
    EventKind.JOB_QUEUED: "job_id",
    EventKind.TEMPLATE_CHANGED: "template_id",
    EventKind.NOTIFICATION: "notification_id",
    EventKind.SETTINGS_CHANGED: None,  # its payload says whether the id is a template's, a preset's or neither
}
_COMMON_FIELDS: Final = frozenset({"event_id", "occurred_at", "organization_id"})


@dataclass(frozen=True, slots=True)
class Wire:
    """An event as it is published."""

    subject: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Hint:
    """What a reader gets: look at this. Only `event` and `subject_id` are certain."""

    event: EventKind
    subject_id: UUID
    organization_id: OrganizationId | None
    occurred_at: datetime | None
    """Time of the row by the database's clock."""
    message: EventMessage | None
    """None where the body could not be parsed."""
    traceparent: str | None

    def is_stale(self, now: datetime) -> bool:
        """Whether it is too old to be worth a look; a hint of unknown age never is."""
        return self.occurred_at is not None and now - self.occurred_at > STALE_AFTER


def to_wire(row: OutboxRow) -> Wire:
    """Make the event of a row: payload keys that its message does not have are left out, missing ones stay empty."""
    headers = {MESSAGE_ID: str(row.id), CONTENT_TYPE: _CONTENT_TYPES[row.event]}
    if row.traceparent:
        headers[TRACEPARENT] = row.traceparent
    return Wire(format_subject(row.event, row.subject_id), _message(row).SerializeToString(), headers)


def to_hint(subject: str, body: bytes, headers: Mapping[str, str] | None) -> Hint | None:
    """Read what was published; None only where the subject itself is of no event that is known here."""
    about = parse_subject(subject)
    if about is None:
        return None
    message = _parsed(about.event, body)
    return Hint(
        event=about.event,
        subject_id=about.subject_id,
        organization_id=None if message is None else _organization(message),
        occurred_at=None if message is None else _time(message),
        message=message,
        traceparent=(headers or {}).get(TRACEPARENT),
    )


def _message(row: OutboxRow) -> EventMessage:
    message = MESSAGES[row.event](event_id=str(row.id))
    if row.organization_id is not None:
        message.organization_id = str(row.organization_id)
    message.occurred_at.FromDatetime(row.created_at)
    subject_field = _SUBJECT_FIELDS[row.event]
    fields = _PAYLOAD_FIELDS[row.event]
    for name, value in row.payload.items():
        field = fields.get(name)
        if field is not None and value is not None and name != subject_field:
            _fill(message, field, value)
    if subject_field is not None:
        setattr(message, subject_field, str(row.subject_id))
    return message


def _fill(message: EventMessage, field: FieldDescriptor, value: object) -> None:
    """Set a field, or leave it empty where the value is of another type: a row of another version is still a hint."""
    try:
        if field.is_repeated:
            values = cast("list[object]", value) if isinstance(value, list) else [value]
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, value)
    except (TypeError, ValueError):
        message.ClearField(field.name)  # pyright: ignore[reportArgumentType] - a name out of the message's descriptor


def _parsed(event: EventKind, body: bytes) -> EventMessage | None:
    try:
        return MESSAGES[event].FromString(body)
    except DecodeError:
        return None


def _organization(message: EventMessage) -> OrganizationId | None:
    try:
        return OrganizationId(UUID(message.organization_id))
    except ValueError:
        return None


def _time(message: EventMessage) -> datetime | None:
    if not message.HasField("occurred_at"):
        return None
    try:
        return message.occurred_at.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


_PAYLOAD_FIELDS: Final[Mapping[EventKind, Mapping[str, FieldDescriptor]]] = {
    event: {field.name: field for field in message.DESCRIPTOR.fields if field.name not in _COMMON_FIELDS}
    for event, message in MESSAGES.items()
}
_CONTENT_TYPES: Final[Mapping[EventKind, str]] = {
    event: f"application/x-protobuf; messageType={message.DESCRIPTOR.full_name}" for event, message in MESSAGES.items()
}
