from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

import pytest

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId
from prebuilds.events.bodies import MESSAGES, STALE_AFTER, Hint, to_hint, to_wire
from prebuilds.events.subjects import format_subject
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.v1 import event_pb2

NOW = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def row(event: EventKind = EventKind.CLAIMED, payload: dict[str, Any] | None = None, **changes: Any) -> OutboxRow:
    values: dict[str, Any] = {
        "id": uuid4(),
        "event": event,
        "subject_id": uuid4(),
        "organization_id": uuid4(),
        "payload": payload or {},
        "traceparent": TRACEPARENT,
        "created_at": NOW,
        **changes,
    }
    return OutboxRow(**values)


def hint_of(published: OutboxRow) -> Hint:
    wire = to_wire(published)
    hint = to_hint(wire.subject, wire.body, wire.headers)
    assert hint is not None
    return hint


def test_every_event_has_a_message_with_the_fields_that_all_have() -> None:
    assert set(MESSAGES) == set(EventKind)
    for message in MESSAGES.values():
        assert [field.name for field in message.DESCRIPTOR.fields][:3] == ["event_id", "occurred_at", "organization_id"]


@pytest.mark.parametrize("event", EventKind)
def test_a_hint_says_what_its_row_said(event: EventKind) -> None:
    published = row(event)
    hint = hint_of(published)
    assert hint.event is event
    assert hint.subject_id == published.subject_id
    assert hint.organization_id == OrganizationId(cast("Any", published.organization_id))
    assert hint.occurred_at == NOW
    assert hint.traceparent == TRACEPARENT
    assert isinstance(hint.message, MESSAGES[event])
    assert hint.message.event_id == str(published.id)


def test_headers_name_id_trace_and_content() -> None:
    published = row()
    assert to_wire(published).headers == {
        "Nats-Msg-Id": str(published.id),
        "traceparent": TRACEPARENT,
        "content-type": "application/x-protobuf; messageType=prebuilds.v1.Claimed",
    }


def test_a_row_without_trace_has_no_trace_header() -> None:
    assert "traceparent" not in to_wire(row(traceparent=None)).headers


def test_payload_and_subject_fill_the_fields_of_the_message() -> None:
    published = row(EventKind.HANDOVER_DUE, {"claim_id": "c", "generation": 3})
    message = hint_of(published).message
    assert isinstance(message, event_pb2.HandoverDue)
    assert message.workspace_id == str(published.subject_id)
    assert message.claim_id == "c"
    assert message.generation == 3


def test_the_row_decides_what_its_payload_says_otherwise() -> None:
    published = row(payload={"workspace_id": "another", "event_id": "another", "organization_id": "another"})
    message = hint_of(published).message
    assert isinstance(message, event_pb2.Claimed)
    assert message.workspace_id == str(published.subject_id)
    assert message.event_id == str(published.id)
    assert message.organization_id == str(published.organization_id)


def test_unknown_keys_nulls_and_values_of_another_type_are_left_out() -> None:
    payload = {"colour": "red", "claim_id": None, "generation": "three"}
    message = hint_of(row(EventKind.HANDOVER_DUE, payload)).message
    assert isinstance(message, event_pb2.HandoverDue)
    assert message.claim_id == ""
    assert message.generation == 0


@pytest.mark.parametrize("value, expected", [(["a", "b"], ["a", "b"]), ("a", ["a"]), ([1], []), ([], [])], ids=str)
def test_a_repeated_field_takes_a_list_or_one_value(value: object, expected: list[str]) -> None:
    message = hint_of(row(EventKind.AGENT_REVOKED, {"agent_ids": value})).message
    assert isinstance(message, event_pb2.AgentRevoked)
    assert list(message.agent_ids) == expected


def test_a_row_without_organisation_leaves_it_open() -> None:
    hint = hint_of(row(EventKind.SETTINGS_CHANGED, organization_id=None))
    assert hint.organization_id is None


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff", b"not protobuf at all"], ids=["empty", "broken", "text"])
def test_a_body_that_says_nothing_is_still_the_hint_of_its_subject(body: bytes) -> None:
    subject_id = uuid4()
    hint = to_hint(format_subject(EventKind.CLAIMED, subject_id), body, None)
    assert hint is not None
    assert (hint.event, hint.subject_id) == (EventKind.CLAIMED, subject_id)
    assert (hint.organization_id, hint.occurred_at, hint.traceparent) == (None, None, None)


def test_times_and_ids_that_are_none_are_left_open() -> None:
    body = event_pb2.Claimed(organization_id="?")
    body.occurred_at.seconds = -(10**14)
    hint = to_hint(format_subject(EventKind.CLAIMED, uuid4()), body.SerializeToString(), {})
    assert hint is not None
    assert hint.organization_id is None
    assert hint.occurred_at is None


def test_a_subject_of_no_known_event_gives_no_hint() -> None:
    assert to_hint(f"prebuilds.v1.exploded.{uuid4()}", b"", {}) is None


@pytest.mark.parametrize(
    "age, is_stale",
    [
        (timedelta(0), False),
        (STALE_AFTER, False),
        (STALE_AFTER + timedelta(microseconds=1), True),
        (-STALE_AFTER, False),
    ],
    ids=str,
)
def test_a_hint_is_stale_after_a_minute(age: timedelta, is_stale: bool) -> None:
    assert hint_of(row(created_at=NOW - age)).is_stale(NOW) is is_stale


def test_a_hint_of_unknown_age_is_never_stale() -> None:
    hint = to_hint(format_subject(EventKind.CLAIMED, uuid4()), b"", None)
    assert hint is not None
    assert not hint.is_stale(NOW)
