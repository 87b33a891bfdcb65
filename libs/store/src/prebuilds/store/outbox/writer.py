"""Writes events beside the change that causes them; nobody publishes but the relay, after the commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
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
    appended = {uuid4(): each for each in events}
    cursor = await tx.run(
        _queries["append"],
        {
            "ids": list(appended),
            "events": [each.event.value for each in events],
            "subject_ids": [each.subject_id for each in events],
            "organization_ids": [each.organization_id for each in events],
            "payloads": [Jsonb(each.payload) for each in events],
            "traceparent": traceparent,
        },
    )
    created_at: dict[UUID, datetime] = {id_: at for id_, at in await cursor.fetchall()}  # noqa: C416 - gives the types
    tx.appended.extend(
        OutboxRow(id_, each.event, each.subject_id, each.organization_id, each.payload, traceparent, created_at[id_])
        for id_, each in appended.items()
    )
