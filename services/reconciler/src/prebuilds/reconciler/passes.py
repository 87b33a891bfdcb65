"""Passes: look at pools, plan them, and do the work that they have (behaviour section 5).

Postgres is authoritative; nothing is remembered between passes but compiled schedules. A pass goes

1. *snapshot*: one repeatable-read, read-only transaction of at most eight statements, whatever the number of pools;
2. *plan*: pure; pools without work cost nothing more;
3. *work*: each pool with work in a transaction of its own: lock its preset (passing over what another replica holds),
   read that pool again, plan again, execute, commit. So many at once as passes may use connections, snapshots included.

Crash before a pool's commit: nothing happened to it, its lock is gone, the next pass of any replica finds it as it was.
Two replicas never work on one pool at once, because both lock its preset; who does not get the lock comes again, since
what it saw may be newer than what the other one plans by.

Replicas whose passes begin together find the same work. Each goes through it in an order of its own, and passes over
what another one has seen to meanwhile. That is: whoever locks a preset writes the begin of its transaction into
`reconciled_at` and commits it with its work; who finds a time there that is later than `seen_at`, read from the same
clock when its own snapshot had been taken, need not look. For the other one has read the pool in a statement after that
begin, so it saw all that this snapshot saw, planned it at a later present, and has committed what was to be done. What
came after it, this snapshot does not know either: hints and the tick tell. A clock that is set back costs a tick.

Where the group `prebuilds` of an organisation has an allowance, its pools are worked on one after another: whoever
does holds the organisation's quota, an advisory lock that comes before the preset's. So are the pools of a template
with `max_starting`, within one process: only replicas may exceed that, by one pass. They wait for each other before
they take a connection. A quota that another replica holds is passed over like a preset, with all pools that want it.

Several passes may be under way in one process. One that has much to do leaves a slot to those that have little, and a
pool that one is at when another comes to it is looked at once more when that is done.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from opentelemetry.metrics import Meter

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.execution import Done, execute
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.outcomes import Outcome, PassStatistics, count_up, tell
from prebuilds.reconciler.planning import Paused, Planned, Planning, Snapshot
from prebuilds.reconciler.queries.pools import Extent, PresetRow, Taken, find_seen_to, take_preset
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.slots import Slots
from prebuilds.store.database import Database
from prebuilds.store.quota import lock_quota
from prebuilds.store.transactions import Transaction

_PASSING: Final = frozenset({Reason.DEPENDENCY_UNAVAILABLE, Reason.TRANSACTION_CONFLICT, Reason.DEADLINE_EXCEEDED})
"""Refusals that say nothing of the pool: its work is still to be done, and the tick is far away."""

_log = structlog.stdlib.get_logger(__name__)


class _HeldError(Exception):
    """What is to be locked first is not: nothing of the transaction must stay, its mark on the preset neither."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What a pass has still to work on: groups of pools that one bound holds together, each of one pool elsewhere."""

    groups: list[list[PresetRow]]
    seen_at: datetime
    is_much: bool
    outcomes: list[Done | Outcome] = field(default_factory=list[Done | Outcome])

    @property
    def left(self) -> int:
        """How many pools."""
        return sum(map(len, self.groups))


class Reconciler:
    """Runs passes."""

    def __init__(
        self,
        database: Database,
        hints: Hints,
        *,
        config: Config,
        lookback: timedelta,
        concurrency: int,
        meter: Meter,
        tick: timedelta = timedelta(),
        clock: Clock | None = None,
    ) -> None:
        """`concurrency` is how many connections all passes of this process use at once.

        Everything is looked at `tick` after the last time: what changes by itself before that is hinted.
        """
        self._database = database
        self._hints = hints
        # A tick lasts, and the next one comes so long after its end.
        self._planning = Planning(config=config, lookback=lookback, horizon=2 * tick)
        self._concurrency = concurrency
        self._slots = Slots(concurrency)
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._at_work: dict[PresetId, bool] = {}
        """The presets that are worked on now, and whether another pass has come to them meanwhile."""
        self._clock = clock or SystemClock()
        self._duration = meter.create_histogram(
            "prebuilds_reconciliation_duration_seconds", unit="s", description="Duration of passes."
        )

    async def run_pass(self, extent: Extent) -> PassStatistics:
        """Run one pass over these pools; a failure of one pool is logged and counted, and stops no other."""
        began = self._clock.monotonic()
        snapshot = await self.take_snapshot(extent)
        snapshot_took = self._clock.monotonic() - began
        groups = _shuffled(snapshot.work)
        is_much = extent.everything or len(groups) > self._concurrency
        outcomes = await self._work_through(_Work(groups, snapshot.moment.seen_at, is_much))
        took = self._clock.monotonic() - began
        self._duration.record(took)
        return count_up(snapshot, outcomes, timedelta(seconds=snapshot_took), timedelta(seconds=took))

    async def take_snapshot(self, extent: Extent) -> Snapshot:
        """Read all of these pools at one moment, in a constant number of statements, and plan them.

        Those that something changes by itself are hinted when it does.
        """
        async with (
            self._slots.take(for_much=extent.everything),
            self._database.read("snapshot", snapshot=True) as tx,
        ):
            began = self._clock.monotonic()
            snapshot = await self._planning.take_snapshot(tx, extent)
        since = timedelta(seconds=self._clock.monotonic() - began)
        for change, preset_ids in snapshot.changes.items():
            self._hints.add_change(change, preset_ids, after=change - snapshot.moment.at - since)
        return snapshot

    async def _work_through(self, work: _Work) -> list[Done | Outcome]:
        """Work on these pools, those of one group one after another.

        No more wait for a slot than may work at once, so that other passes get their turn in between.
        """

        async def go_on() -> None:
            while work.groups:
                await self._work_on_group(work.groups.pop(), work)

        await asyncio.gather(*(go_on() for _ in range(min(self._concurrency, len(work.groups)))))
        return work.outcomes

    async def _work_on_group(self, group: list[PresetRow], work: _Work) -> None:
        while group:
            preset = group.pop()
            outcome = await self._work_on(preset, work)
            work.outcomes.append(outcome)
            match outcome:
                case Outcome.QUOTA_HELD:
                    # All of them want it.
                    self._hints.add_quota_held(preset.organization_id, [each.preset_id for each in (preset, *group)])
                    work.outcomes.extend([outcome] * len(group))
                    group.clear()
                case Outcome.SEEN_TO if len(group) + work.left >= self._concurrency:
                    await self._sift([group, *work.groups], work)
                case _:
                    pass

    async def _sift(self, groups: Sequence[list[PresetRow]], work: _Work) -> None:
        """Take out what others have seen to: where they were at one pool, they were at more."""
        ids = [preset.preset_id for group in groups for preset in group]
        try:
            async with self._slots.take(for_much=work.is_much), self._database.read("sift") as tx:
                seen_to = await find_seen_to(tx, ids, work.seen_at)
        except Refusal:
            return  # It only spares work: each pool tells as much when its turn comes.
        for group in groups:
            before = len(group)
            group[:] = [preset for preset in group if preset.preset_id not in seen_to]
            work.outcomes.extend([Outcome.SEEN_TO] * (before - len(group)))

    async def _work_on(self, preset: PresetRow, work: _Work) -> Done | Outcome:
        async with self._turn(preset), self._slots.take(for_much=work.is_much):
            if preset.preset_id in self._at_work:
                self._at_work[preset.preset_id] = True
                return Outcome.HELD
            self._at_work[preset.preset_id] = False
            try:
                return await self._try(preset, work.seen_at)
            finally:
                if self._at_work.pop(preset.preset_id):
                    self._hints.add(Extent(preset_ids=frozenset({preset.preset_id})))

    def _turn(self, preset: PresetRow) -> AbstractAsyncContextManager[None]:
        """Wait for the other pools under the same bound; without one there is nothing to wait for."""
        bound = _bound_of(preset)
        return nullcontext() if bound is None else self._turns.setdefault(bound, asyncio.Lock())

    async def _try(self, preset: PresetRow, seen_at: datetime) -> Done | Outcome:
        try:
            done = await self._database.run("reconcile", lambda tx: self._reconcile(tx, preset, seen_at))
        except _HeldError:
            done = Outcome.HELD
        except Refusal as refusal:
            _log.warning(
                "pool was not reconciled", preset_id=preset.preset_id, reason=refusal.reason, cause=str(refusal)
            )
            if refusal.reason in _PASSING:
                self._hints.add_refused(preset.preset_id)
            return Outcome.FAILED
        except Exception:  # noqa: BLE001 - a loop's body: one pool's failure never stops the others
            _log.exception("pool was not reconciled", preset_id=preset.preset_id)
            return Outcome.FAILED
        match done:
            case None:
                return Done()
            case (planned, done):
                tell(planned, done)
                return done
            case Outcome.HELD:
                self._hints.add_held(preset.preset_id)
                return done
            case _:
                return done

    async def _reconcile(
        self, tx: Transaction, seen: PresetRow, seen_at: datetime
    ) -> tuple[Planned, Done] | Outcome | None:
        """Work on one pool; None where there is none. Locks the quota, its preset, then what execution locks."""
        if seen.has_allowance and not await lock_quota(tx, seen.organization_id):
            return Outcome.QUOTA_HELD
        taken = await take_preset(tx, seen.preset_id, seen_at)
        match taken:
            case Taken.LOCKED:
                pass
            case Taken.HELD:
                return Outcome.HELD
            case Taken.SEEN_TO:
                return Outcome.SEEN_TO
            case _:
                assert_never(taken)
        # Later statements than the locks': they see what whoever held them before has committed.
        planned = await self._planning.look_at(tx, seen.preset_id)
        match planned:
            case None:
                return None
            case Paused():
                return Outcome.PAUSED
            case Planned(quota=quota):
                if quota is not None and not seen.has_allowance:
                    # The allowance is newer than the snapshot, and the quota comes before the preset in lock order.
                    raise _HeldError
                return planned, await execute(tx, planned)
            case _:
                assert_never(planned)


def _shuffled(presets: Sequence[PresetRow]) -> list[list[PresetRow]]:
    """Groups of presets in random order: those that one bound holds together, every other one by itself."""
    groups: defaultdict[UUID, list[PresetRow]] = defaultdict(list)
    for preset in presets:
        groups[_bound_of(preset) or preset.preset_id].append(preset)
    shuffled = list(groups.values())
    random.shuffle(shuffled)
    return shuffled


def _bound_of(preset: PresetRow) -> OrganizationId | TemplateId | None:
    """What bounds the pool together with others; the allowance of the organisation also holds those of a template."""
    if preset.has_allowance:
        return preset.organization_id
    return preset.template_id if preset.max_starting is not None else None
