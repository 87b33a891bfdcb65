"""Writes events beside the change that causes them; nobody publishes but the relay, after the commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from prebuilds.domain.events import EventKind
from prebuilds.store.outbox.rows import OutboxRow, Scalar
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.outbox")


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to which thing; a hint, so the payload is small."""

    event: EventKind
    subject_id: UUID
    organization_id: UUID | None
    payload: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])


async def append(
    tx: Transaction,
    event: EventKind,
    subject_id: UUID,
    *,
    organization_id: UUID | None,
    payload: Mapping[str, Scalar] | None = None,
    traceparent: str | None = None,
) -> None:
    """Append one event; it is handed to the relay when, and only when, the transaction has committed."""
    await append_many(tx, [Event(event, subject_id, organization_id, payload or {})], traceparent=traceparent)


async def append_many(tx: Transaction, events: Sequence[Event], *, traceparent: str | None = None) -> None:
    """Append all these events in one statement; with no events nothing is sent. Locks nothing."""
    if not events:
        return
    traceparent = traceparent or tx.database.trace_context()
    rows = [
        OutboxRow(uuid4(), each.event, each.subject_id, each.organization_id, each.payload, traceparent)
        for each in events
    ]
    await tx.run(
        _queries["append"],
        {
            "ids": [row.id for row in rows],
            "events": [row.event.value for row in rows],
            "subject_ids": [row.subject_id for row in rows],
            "organization_ids": [row.organization_id for row in rows],
            "payloads": [Jsonb(row.payload) for row in rows],
            "traceparent": traceparent,
        },
    )
    tx.appended.extend(rows)
