"""Publishing on one session, pipelined: many events in flight, their acknowledgements taken as they come.

All acknowledgements come to one inbox, told apart by the last part of its subject; nobody waits for a single one. An
event is *settled* exactly once: acknowledged, or failed (refused, not answered in time, or the session was lost).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from prebuilds.chassis.clock import Clock
from prebuilds.domain.events import EventKind
from prebuilds.events.bodies import to_wire
from prebuilds.events.jetstream import NO_RESPONDERS, STATUS, JetStreamError, listen, raise_for
from prebuilds.store.outbox.rows import OutboxRow

NO_STREAM: Final = "no stream takes it"


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one event; `cause` is None where JetStream has it."""

    event_id: UUID
    event: EventKind
    cause: str | None


@dataclass(frozen=True, slots=True)
class _InFlight:
    event_id: UUID
    event: EventKind
    deadline: float


class Publisher:
    """Publishes rows and tells `settled` what became of each."""

    def __init__(
        self, client: Client, settled: Callable[[Published], None], *, acknowledged_within: timedelta, clock: Clock
    ) -> None:
        """Use the client of one session; `open` comes first."""
        self._client = client
        self._settled = settled
        self._patience = acknowledged_within.total_seconds()
        self._clock = clock
        self._inbox = ""
        self._next = 0
        self._in_flight: dict[str, _InFlight] = {}

    @property
    def in_flight(self) -> int:
        """How many are not settled."""
        return len(self._in_flight)

    async def open(self) -> None:
        """Listen for acknowledgements."""
        self._inbox = self._client.new_inbox()
        await listen(self._client, f"{self._inbox}.*", self._answered)

    async def send(self, row: OutboxRow) -> None:
        """Publish a row without waiting for its acknowledgement; where that raises, the row is settled too."""
        self._next += 1
        token = str(self._next)
        self._in_flight[token] = _InFlight(row.id, row.event, self._clock.monotonic() + self._patience)
        try:
            wire = to_wire(row)
            await self._client.publish(wire.subject, wire.body, reply=f"{self._inbox}.{token}", headers=wire.headers)
        except (OSError, nats.errors.Error) as error:
            self._settle(token, type(error).__name__)
            raise

    def give_up_overdue(self) -> None:
        """Settle as failed what was not answered in time."""
        now = self._clock.monotonic()
        # Deadlines rise in the order of sending.
        while self._in_flight:
            token, oldest = next(iter(self._in_flight.items()))
            if oldest.deadline > now:
                return
            self._settle(token, "not acknowledged in time")

    def give_up_all(self) -> None:
        """Settle as failed all that is in flight."""
        for token in list(self._in_flight):
            self._settle(token, "connection lost")

    async def _answered(self, answer: Msg) -> None:
        self._settle(answer.subject.rpartition(".")[2], _cause(answer))

    def _settle(self, token: str, cause: str | None) -> None:
        sent = self._in_flight.pop(token, None)
        if sent is not None:
            self._settled(Published(sent.event_id, sent.event, cause))


def _cause(answer: Msg) -> str | None:
    if answer.headers and answer.headers.get(STATUS) == NO_RESPONDERS:
        return NO_STREAM
    try:
        # An acknowledgement is only parsed where it is none: there is one for each event of the hot path.
        if b'"error"' in answer.data:
            raise_for(json.loads(answer.data))
    except (ValueError, JetStreamError) as error:
        return str(error)
    return None
