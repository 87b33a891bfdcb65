"""The presence of this process and of the agents that it holds (behaviour section 8, *Connection*).

The process has a row that it refreshes every 5 s; agents of a process whose row was not seen for 60 s are gone. Streams
are attached in batches that collect for at most 50 ms, and detached 5 s after their end where no other stream has
replaced them by then.

Postgres is authoritative on which stream counts; this process on whether its own streams are open. Crash points: what
was not attached is found by the 5 s check and attached again; what was not detached ages with the process's row. A
draining process detaches nothing and refreshes its row no more: its agents are about to come back elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice, takewhile
from typing import Final
from uuid import uuid4

from prebuilds.chassis.calls import Draining
from prebuilds.chassis.clock import Clock
from prebuilds.chassis.loops import Wakeups
from prebuilds.domain.ids import AgentId, ConnectionId, GatewayId
from prebuilds.store.database import Database
from prebuilds.store.gateways import forget_gateways, refresh_gateway
from prebuilds.store.pool.connections import Connection, attach, detach
from prebuilds.store.transactions import Transaction

COLLECTED_FOR: Final = timedelta(milliseconds=50)
AT_ONCE: Final = 500
"""Streams per transaction, which locks the pool rows of all of them."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written down of the connections."""

    attached: int
    detached: int

    def __bool__(self) -> bool:
        """Whether anything was."""
        return self.attached > 0 or self.detached > 0


class Presence:
    """Writes down that this process lives and whom it holds."""

    def __init__(
        self,
        database: Database,
        *,
        draining: Draining,
        clock: Clock,
        wakeups: Wakeups,
        detach_after: timedelta,
    ) -> None:
        """`wakeups` wake the loop that runs `write_once`."""
        self._gateway_id = GatewayId(uuid4())
        self._database = database
        self._draining = draining
        self._clock = clock
        self._wakeups = wakeups
        self._detach_after = detach_after
        self._wanted: dict[AgentId, Connection] = {}
        self._ended: deque[tuple[float, Connection]] = deque()
        """With the time when each is to be detached, in that order."""

    @property
    def gateway_id(self) -> GatewayId:
        """Id of the process, as Postgres knows it."""
        return self._gateway_id

    async def enter(self, address: str) -> None:
        """Make the process's row; rows of processes long gone are removed on the way."""
        async with self._database.transaction("enter gateway") as tx:
            await refresh_gateway(tx, self._gateway_id, address)
            await forget_gateways(tx)

    async def refresh_once(self, address: str) -> None:
        """Say that the process lives; not while it drains."""
        if not self._draining.is_set():
            async with self._database.transaction("refresh gateway") as tx:
                await refresh_gateway(tx, self._gateway_id, address)

    def attach(self, connection: Connection) -> None:
        """Have it attached with the next batch."""
        self._wanted[connection.agent_id] = connection
        self._wakeups.wake()

    def leave(self, connection: Connection) -> None:
        """Have it detached when it has been gone for a while; not while the process drains."""
        if self._wanted.get(connection.agent_id) == connection:
            del self._wanted[connection.agent_id]
        if not self._draining.is_set():
            self._ended.append((self._clock.monotonic() + self._detach_after.total_seconds(), connection))

    async def write_once(self) -> Written:
        """Collect for a moment, then attach what is wanted and detach what is due. What fails stays to be done."""
        if self._wanted:
            await self._clock.sleep(COLLECTED_FOR.total_seconds())
        attached = detached = 0
        while self._wanted and not self._draining.is_set():
            batch = list(islice(self._wanted.values(), AT_ONCE))
            attached += len(await self._database.run("attach", partial(self._attach, batch)))
            for connection in batch:
                if self._wanted.get(connection.agent_id) is connection:
                    del self._wanted[connection.agent_id]
        while not self._draining.is_set() and (due := self._due_now()):
            await self._database.run("detach", partial(_detach, due))
            for _ in due:
                self._ended.popleft()
            detached += len(due)
        return Written(attached, detached)

    async def _attach(self, batch: Sequence[Connection], tx: Transaction) -> frozenset[ConnectionId]:
        return await attach(tx, self._gateway_id, batch)

    def _due_now(self) -> list[Connection]:
        now = self._clock.monotonic()
        due = takewhile(lambda ended: ended[0] <= now, self._ended)
        return [connection for _, connection in islice(due, AT_ONCE)]


async def _detach(batch: Sequence[Connection], tx: Transaction) -> None:
    await detach(tx, batch)
