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
does holds the organisation's quota, an advisory lock that comes before the preset's. In one process they wait for each
other before they take a connection; what another replica holds is passed over like a preset.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

import structlog
from opentelemetry.metrics import Meter

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.domain.ids import OrganizationId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.execution import Done, execute
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.planning import Paused, Planned, Planning, Snapshot
from prebuilds.reconciler.queries.pools import Extent, PresetRow, Taken, find_seen_to, take_preset
from prebuilds.reconciler.rules.planner import Config
from prebuilds.store.database import Database
from prebuilds.store.quota import lock_quota
from prebuilds.store.transactions import Transaction

_PASSING: Final = frozenset({Reason.DEPENDENCY_UNAVAILABLE, Reason.TRANSACTION_CONFLICT, Reason.DEADLINE_EXCEEDED})
"""Refusals that say nothing of the pool: its work is still to be done, and the tick is far away."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PassStatistics:
    """What one pass saw and did."""

    started_at: datetime
    """By the database's clock."""
    seen: int = 0
    skipped: int = 0
    """Pools without work, and those whose work another replica did meanwhile."""
    reconciled: int = 0
    held_elsewhere: int = 0
    paused: int = 0
    failed: int = 0
    created: int = 0
    deleted: int = 0
    canceled: int = 0
    backing_off: int = 0
    snapshot_duration: timedelta = timedelta()
    duration: timedelta = timedelta()


class _Outcome(StrEnum):
    HELD = "held_elsewhere"
    SEEN_TO = "seen_to"
    PAUSED = "paused"
    FAILED = "failed"


class _HeldError(Exception):
    """What is to be locked first is not: nothing of the transaction must stay, its mark on the preset neither."""


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
        clock: Clock | None = None,
    ) -> None:
        """`concurrency` is how many connections all passes of this process use at once."""
        self._database = database
        self._hints = hints
        self._planning = Planning(config=config, lookback=lookback)
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._quotas: defaultdict[OrganizationId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._clock = clock or SystemClock()
        self._duration = meter.create_histogram(
            "prebuilds_reconciliation_duration_seconds", unit="s", description="Duration of passes."
        )

    async def run_pass(self, extent: Extent) -> PassStatistics:
        """Run one pass over these pools; a failure of one pool is logged and counted, and stops no other."""
        began = self._clock.monotonic()
        snapshot = await self.take_snapshot(extent)
        snapshot_took = self._clock.monotonic() - began
        outcomes = await self._work_through(_shuffled(snapshot.work), snapshot.moment.seen_at)
        took = self._clock.monotonic() - began
        self._duration.record(took)
        return self._statistics(snapshot, outcomes, timedelta(seconds=snapshot_took), timedelta(seconds=took))

    async def take_snapshot(self, extent: Extent) -> Snapshot:
        """Read all of these pools at one moment, in a constant number of statements, and plan them."""
        async with self._slots, self._database.read("snapshot", snapshot=True) as tx:
            return await self._planning.take_snapshot(tx, extent)

    async def _work_through(self, left: list[list[PresetRow]], seen_at: datetime) -> list[Done | _Outcome]:
        """Work on these pools, those of one group one after another.

        No more wait for a slot than may work at once, so that other passes get their turn in between.
        """
        outcomes: list[Done | _Outcome] = []

        async def work() -> None:
            while left:
                outcomes.extend([await self._work_on(preset, seen_at) for preset in left.pop()])
                if outcomes[-1] is _Outcome.SEEN_TO and len(left) >= self._concurrency:
                    outcomes.extend(await self._sift(left, seen_at))

        await asyncio.gather(*(work() for _ in range(min(self._concurrency, len(left)))))
        return outcomes

    async def _sift(self, left: list[list[PresetRow]], seen_at: datetime) -> list[_Outcome]:
        """Take out what others have seen to: where they were at one pool, they were at more."""
        ids = [preset.preset_id for group in left for preset in group]
        try:
            async with self._slots, self._database.read("sift") as tx:
                seen_to = await find_seen_to(tx, ids, seen_at)
        except Refusal:
            return []  # It only spares work: each pool tells as much when its turn comes.
        before = sum(map(len, left))
        left[:] = [group for each in left if (group := [preset for preset in each if preset.preset_id not in seen_to])]
        return [_Outcome.SEEN_TO] * (before - sum(map(len, left)))

    async def _work_on(self, preset: PresetRow, seen_at: datetime) -> Done | _Outcome:
        async with self._turn(preset), self._slots:
            try:
                done = await self._database.run("reconcile", lambda tx: self._reconcile(tx, preset, seen_at))
            except _HeldError:
                done = _Outcome.HELD
            except Refusal as refusal:
                _log.warning(
                    "pool was not reconciled", preset_id=preset.preset_id, reason=refusal.reason, cause=str(refusal)
                )
                if refusal.reason in _PASSING:
                    self._hints.add_refused(preset.preset_id)
                return _Outcome.FAILED
            except Exception:  # noqa: BLE001 - a loop's body: one pool's failure never stops the others
                _log.exception("pool was not reconciled", preset_id=preset.preset_id)
                return _Outcome.FAILED
        match done:
            case None:
                return Done()
            case (planned, done):
                _tell(planned, done)
                return done
            case _Outcome.HELD:
                self._hints.add_held(preset.preset_id)
                return done
            case _:
                return done

    def _turn(self, preset: PresetRow) -> AbstractAsyncContextManager[None]:
        """Wait for the other pools of an organisation with an allowance; without one there is nothing to wait for."""
        return self._quotas[preset.organization_id] if preset.has_allowance else nullcontext()

    async def _reconcile(
        self, tx: Transaction, seen: PresetRow, seen_at: datetime
    ) -> tuple[Planned, Done] | _Outcome | None:
        """Work on one pool; None where there is none. Locks the quota, its preset, then what execution locks."""
        if seen.has_allowance and not await lock_quota(tx, seen.organization_id):
            return _Outcome.HELD
        taken = await take_preset(tx, seen.preset_id, seen_at)
        match taken:
            case Taken.LOCKED:
                pass
            case Taken.HELD:
                return _Outcome.HELD
            case Taken.SEEN_TO:
                return _Outcome.SEEN_TO
            case _:
                assert_never(taken)
        # Later statements than the locks': they see what whoever held them before has committed.
        planned = await self._planning.look_at(tx, seen.preset_id)
        match planned:
            case None:
                return None
            case Paused():
                return _Outcome.PAUSED
            case Planned(quota=quota):
                if quota is not None and not seen.has_allowance:
                    # The allowance is newer than the snapshot, and the quota comes before the preset in lock order.
                    raise _HeldError
                return planned, await execute(tx, planned)
            case _:
                assert_never(planned)

    @staticmethod
    def _statistics(
        snapshot: Snapshot, outcomes: Sequence[Done | _Outcome], snapshot_took: timedelta, took: timedelta
    ) -> PassStatistics:
        done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        others = Counter(outcome for outcome in outcomes if isinstance(outcome, _Outcome))
        return PassStatistics(
            started_at=snapshot.moment.at,
            seen=snapshot.seen,
            skipped=snapshot.seen - snapshot.paused - len(outcomes) + others[_Outcome.SEEN_TO],
            reconciled=len(done),
            held_elsewhere=others[_Outcome.HELD],
            paused=snapshot.paused + others[_Outcome.PAUSED],
            failed=others[_Outcome.FAILED],
            created=sum(each.created for each in done),
            deleted=sum(each.deleted for each in done),
            canceled=sum(each.canceled for each in done),
            backing_off=snapshot.backing_off,
            snapshot_duration=snapshot_took,
            duration=took,
        )


def _shuffled(presets: Sequence[PresetRow]) -> list[list[PresetRow]]:
    """Groups of presets in random order: those that one allowance bounds together, every other one by itself."""
    bounded: defaultdict[OrganizationId, list[PresetRow]] = defaultdict(list)
    groups: list[list[PresetRow]] = []
    for preset in presets:
        if preset.has_allowance:
            bounded[preset.organization_id].append(preset)
        else:
            groups.append([preset])
    groups.extend(bounded.values())
    random.shuffle(groups)
    return groups


def _tell(planned: Planned, done: Done) -> None:
    """Say in the log what was done to a pool and why, once it is committed."""
    preset, plan = planned.preset, planned.plan
    log = _log.bind(preset_id=preset.preset_id, preset=preset.preset_name, template=preset.template_name)
    if plan.was_cut:
        log.critical("creates were cut to the target", target=plan.target.instances, state=plan.state)
    if done.status is not None:
        log.warning("preset's status changed", status=done.status, before=preset.status, cause=done.message)
    if done.is_over_quota is not None:
        log.warning("pool is over quota" if done.is_over_quota else "pool is over quota no more", quota=planned.quota)
    if (done.created, done.deleted, done.canceled) != (0, 0, 0):
        log.info(
            "pool reconciled",
            target=plan.target.instances,
            source=plan.target.source,
            running=plan.state.actual,
            starting=plan.state.starting,
            created=done.created,
            deleted=done.deleted,
            canceled=done.canceled,
            blocked_by=[block.value for block in plan.blocks],
        )
