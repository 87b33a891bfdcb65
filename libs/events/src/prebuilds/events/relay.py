"""The relay: from the outbox to JetStream. Nobody else publishes events.

Authority: Postgres. A row is in the outbox until its event is published, and only its deletion says that it is. NATS
may be away, lose what it has or forget that it has it: the worst is a hint that comes twice, late, or not at all.

Two sources feed one pipeline, `queued -> in flight -> acknowledged -> removed`:

(a) the process that committed hands its own rows over at once (`offer`, from `Database.on_commit`);
(b) the sweeper of every server leases rows older than 1 s for 10 s (`SKIP LOCKED`, commit), whoever wrote them.

A row that fails anywhere just leaves the pipeline: it is still in the table, and a sweeper takes it. The same goes for
rows offered while NATS is away or the pipeline is full, so memory is bounded. Never a cursor over ids: rows commit out
of order.

Crash points:

- before the commit: nothing happened;
- after the commit, before publishing: the row is older than 1 s soon, and any server's sweeper takes it;
- after a lease's commit, before publishing: the lease runs out after 10 s, then as above;
- after publishing, before the acknowledgement or the removal: it is published again with the same `Nats-Msg-Id`;
  JetStream drops it within its duplicate window, after that the readers do no harm;
- two that publish the same row (its writer is slower than 1 s): as above.

Where NATS is away nothing is leased, only the lag is measured. Where it is there but refuses (no stream yet), each
sweep tries a few rows, so that a big outbox is not read over and over. The first success opens the tap again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import nats.errors
import structlog
from opentelemetry.metrics import CallbackOptions, Meter, NoOpMeter, Observation

from prebuilds.chassis.cancellation import heed_cancellation
from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.loops import Wakeups, run_loop
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.events.connection import Events, Session
from prebuilds.events.publishing import NO_STREAM, Published, Publisher
from prebuilds.store.database import Database
from prebuilds.store.outbox import sweep as outbox
from prebuilds.store.outbox.rows import OutboxRow

_PROBE: Final = 10
"""How many rows a sweep takes while nothing gets through."""
_AT_ONCE: Final = 32
_RETRY_REMOVAL_AFTER: Final = 1.0  # seconds

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """The relay's times and sizes."""

    capacity: int = 4096
    """Most rows in the pipeline; further ones are left to the sweeper."""
    acknowledged_within: timedelta = timedelta(seconds=5)
    """Shorter than a lease, so that nobody else has the row before it is given up here."""
    sweep_every: timedelta = timedelta(seconds=1)
    sweep_older_than: timedelta = timedelta(seconds=1)
    lease_for: timedelta = timedelta(seconds=10)
    sweep_at_most: int = 500
    remove_after: timedelta = timedelta(milliseconds=20)
    """How long acknowledged rows are collected for one removal."""
    flush_within: timedelta = timedelta(seconds=2)
    """How long closing waits for what is in the pipeline."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one run of the sweeper did."""

    leased: int
    taken: int
    """Of these, how many were not in this process's pipeline already."""
    lag: timedelta

    def __bool__(self) -> bool:
        """Whether there is something to say about it."""
        return self.leased > 0


class Relay:
    """The relay of one process; `open_relay` runs it."""

    def __init__(self, database: Database, events: Events, *, limits: RelayLimits, meter: Meter, clock: Clock) -> None:
        """Nothing runs yet."""
        self._database = database
        self._events = events
        self._limits = limits
        self._clock = clock
        self._queue: deque[OutboxRow] = deque()
        self._inside: set[UUID] = set()
        """Ids of all rows in the pipeline."""
        self._acknowledged: list[UUID] = []
        self._publisher: Publisher | None = None
        self._session: Session | None = None
        self._accepts = True
        self._refused = False
        self._lag = timedelta(0)
        self._work = asyncio.Event()
        self._progress = asyncio.Event()
        self._sweeps = Wakeups(clock)
        self._removals = Wakeups(clock)
        meter.create_observable_gauge(
            "prebuilds_outbox_lag_seconds",
            [self._observe_lag],
            unit="s",
            description="Age of the oldest event that is not published yet; 0 where all are.",
        )
        self._published = meter.create_counter(
            "prebuilds_events_published_total", description="Events that JetStream has acknowledged, by event."
        )
        self._failed = meter.create_counter(
            "prebuilds_events_publish_failed_total", description="Publications that failed and are tried again."
        )
        self._left = meter.create_counter(
            "prebuilds_events_left_to_sweeper_total",
            description="Events of this process left to the sweepers: NATS away, or too many at once.",
        )

    @property
    def lag(self) -> timedelta:
        """Age of the oldest row at the last sweep."""
        return self._lag

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in the pipeline; rows may still be in the table."""
        return not self._inside

    def offer(self, rows: Sequence[OutboxRow]) -> None:
        """Take rows that have just been committed. Neither waits nor raises: what is not taken is left in the table."""
        if not self._accepts or not self._events.is_connected:
            self._left.add(len(rows))
            return
        room = self._limits.capacity - len(self._inside)
        if room < len(rows):
            self._left.add(len(rows) - max(room, 0))
        self._enqueue(rows[: max(room, 0)])

    def wake(self) -> None:
        """Sweep now."""
        self._sweeps.wake()

    def start(self, tasks: BackgroundTasks) -> None:
        """Run the three loops in these tasks."""
        tasks.spawn("relay publishing", self._publish())
        tasks.spawn(
            "relay removal",
            run_loop(
                "relay removal", self.remove, interval=timedelta(hours=1), wakeups=self._removals, clock=self._clock
            ),
        )
        tasks.spawn(
            "relay sweeper",
            run_loop(
                "relay sweeper",
                self.sweep,
                interval=self._limits.sweep_every,
                wakeups=self._sweeps,
                clock=self._clock,
            ),
        )

    async def sweep(self) -> Sweep:
        """Lease what others, or an earlier life, have left, and put it into the pipeline; measure the lag."""
        limits = self._limits
        if self._publisher is not None:
            self._publisher.give_up_overdue()
        room = limits.capacity - len(self._inside)
        limit = min(room, _PROBE if self._refused else limits.sweep_at_most)
        rows: list[OutboxRow] = []
        async with self._database.transaction("relay sweep") as tx:
            if self._accepts and self._events.is_connected and limit > 0:
                rows = await outbox.lease(
                    tx, older_than=limits.sweep_older_than, lease_for=limits.lease_for, limit=limit
                )
            self._lag = await outbox.oldest_age(tx) or timedelta(0)
        heed_cancellation()
        fresh = [row for row in rows if row.id not in self._inside]
        if self._events.is_connected:
            self._enqueue(fresh)
        if len(rows) == limits.sweep_at_most:
            self._sweeps.wake()  # there is more
        return Sweep(len(rows), len(fresh), self._lag)

    async def remove(self) -> None:
        """Remove from the table what JetStream has acknowledged, many at once."""
        if not self._acknowledged:
            return
        await self._clock.sleep(self._limits.remove_after.total_seconds())
        ids, self._acknowledged = self._acknowledged, []
        try:
            async with self._database.transaction("relay removal") as tx:
                await outbox.remove(tx, ids)
        except Exception:
            # What stays in the table is published again; that only costs, so these are tried again but not for ever.
            if len(self._acknowledged) < self._limits.capacity:
                self._acknowledged += ids
                self._removals.wake()
            else:
                self._forget(ids)
            await self._clock.sleep(_RETRY_REMOVAL_AFTER)
            raise
        self._forget(ids)
        heed_cancellation()

    async def flush(self) -> bool:
        """Take no more and wait, not for long, until the pipeline is empty; whether it is."""
        self._accepts = False
        try:
            async with asyncio.timeout(self._limits.flush_within.total_seconds()):
                while not self.is_idle:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            _log.info("events were left in the outbox", events=len(self._inside))
            return False
        return True

    async def _publish(self) -> None:
        while True:
            session = await self._events.connected()
            publisher = Publisher(
                session.client,
                self._settle,
                acknowledged_within=self._limits.acknowledged_within,
                clock=self._clock,
            )
            self._session, self._publisher = session, publisher
            session.on_lost(self._work.set)
            try:
                await publisher.open()
                # What was left behind while NATS was away.
                self._refused = False
                self._sweeps.wake()
                await self._publish_on(session, publisher)
            except (OSError, nats.errors.Error) as error:
                _log.info("publishing was interrupted", cause=type(error).__name__)
                session.lose()
            finally:
                self._session, self._publisher = None, None
                publisher.give_up_all()
                self._forget([row.id for row in self._queue])
                self._queue.clear()

    async def _publish_on(self, session: Session, publisher: Publisher) -> None:
        while not session.is_lost:
            heed_cancellation()
            self._work.clear()
            while self._queue and not session.is_lost:
                for _ in range(min(_AT_ONCE, len(self._queue))):
                    await publisher.send(self._queue.popleft())
                # Sending does not wait for anything: let others run, and the bytes out.
                await asyncio.sleep(0)
            if not session.is_lost and not self._queue:
                await self._work.wait()

    def _enqueue(self, rows: Sequence[OutboxRow]) -> None:
        if rows:
            self._queue.extend(rows)
            self._inside.update(row.id for row in rows)
            self._work.set()

    def _settle(self, published: Published) -> None:
        if published.cause is None:
            self._refused = False
            self._published.add(1, {"event": published.event})
            self._acknowledged.append(published.event_id)
            self._removals.wake()
            return
        self._failed.add(1, {"event": published.event})
        self._forget([published.event_id])
        if not self._refused:
            self._refused = True
            _log.warning("events were not published and are tried again", cause=published.cause)
        if published.cause == NO_STREAM and self._session is not None:
            self._session.streams_missing.set()

    def _forget(self, ids: Sequence[UUID]) -> None:
        self._inside.difference_update(ids)
        self._progress.set()

    def _observe_lag(self, _: CallbackOptions) -> list[Observation]:
        return [Observation(self._lag.total_seconds())]


@contextlib.asynccontextmanager
async def open_relay(
    database: Database,
    events: Events,
    *,
    limits: RelayLimits | None = None,
    meter: Meter | None = None,
    clock: Clock | None = None,
) -> AsyncGenerator[Relay]:
    """Relay what this database's transactions append, and what others have left, until the end.

    At the end what is in the pipeline goes out, for at most 2 s; the rest stays in the table for the other servers.
    """
    relay = Relay(
        database,
        events,
        limits=limits or RelayLimits(),
        meter=meter or NoOpMeter("prebuilds"),
        clock=clock or SystemClock(),
    )
    async with BackgroundTasks() as tasks:
        relay.start(tasks)
        database.on_commit(relay.offer)
        try:
            yield relay
        finally:
            await relay.flush()
