"""Passes: look at pools, plan them, and do the work that they have (behaviour section 5).

Postgres is authoritative; nothing is remembered between passes but compiled schedules. A pass goes

1. *snapshot*: one repeatable-read, read-only transaction of at most six statements, whatever the number of pools;
2. *plan*: pure; pools without work cost nothing more;
3. *work*: each pool with work in a transaction of its own: lock its preset (passing over what another replica holds),
   read that pool again, plan again, execute, commit.

Crash before a pool's commit: nothing happened to it, its lock is gone, the next pass of any replica finds it as it was.
Two replicas never work on one pool at once, because both lock its preset; who does not get the lock comes again, since
what it saw may be newer than what the other one plans by.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import structlog
from opentelemetry.metrics import Meter

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.domain.ids import PresetId, TemplateId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.execution import Done, execute
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.queries.pools import (
    Extent,
    Moment,
    PresetRow,
    count_prebuilds,
    count_starting,
    find_pools,
    lock_preset,
    read_histories,
    read_moment,
    read_prebuilds,
    read_presets,
)
from prebuilds.reconciler.rules.planner import Block, Config, Plan, can_skip, name_deletions, plan
from prebuilds.reconciler.rules.state import Counts, History, count
from prebuilds.reconciler.wishes import Wishes
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction

_NOTHING: Final = Counts()
_NO_HISTORY: Final = History()

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
    """Pools without work."""
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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All pools of an extent as one moment has them, with their plans."""

    moment: Moment
    presets: Sequence[PresetRow]
    plans: Mapping[PresetId, Plan]
    """Of the pools that are neither paused nor skippable."""
    paused: int

    def with_work(self) -> list[PresetId]:
        """The pools to work on."""
        return [preset_id for preset_id, planned in self.plans.items() if planned.has_work]


class _Outcome(StrEnum):
    HELD = "held_elsewhere"
    FAILED = "failed"


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
        """`concurrency` is how many pools are worked on at once, over all passes of this process."""
        self._database = database
        self._hints = hints
        self._config = config
        self._lookback = lookback
        self._slots = asyncio.Semaphore(concurrency)
        self._clock = clock or SystemClock()
        self._wishes = Wishes()
        self._duration = meter.create_histogram(
            "prebuilds_reconciliation_duration_seconds", unit="s", description="Duration of passes."
        )

    async def run_pass(self, extent: Extent) -> PassStatistics:
        """Run one pass over these pools; a failure of one pool is logged and counted, and stops no other."""
        began = self._clock.monotonic()
        snapshot = await self.take_snapshot(extent)
        snapshot_took = self._clock.monotonic() - began
        chosen = snapshot.with_work()
        outcomes = await asyncio.gather(*(self._work_on(preset_id) for preset_id in chosen))
        took = self._clock.monotonic() - began
        self._duration.record(took)
        return self._statistics(snapshot, outcomes, timedelta(seconds=snapshot_took), timedelta(seconds=took))

    async def take_snapshot(self, extent: Extent) -> Snapshot:
        """Read all of these pools at one moment, in a constant number of statements, and plan them."""
        async with self._database.read("snapshot", snapshot=True) as tx:
            moment = await read_moment(tx)
            preset_ids = await find_pools(tx, extent)
            presets = await read_presets(tx, preset_ids)
            counts = await count_prebuilds(tx, preset_ids)
            histories = await self._histories(tx, preset_ids)
            starting = await self._starting(tx, presets)
        if extent.everything:
            self._wishes.forget_all_but(preset_ids)
        plans: dict[PresetId, Plan] = {}
        paused = 0
        for preset in presets:
            if preset.paused_at is not None or moment.is_paused:
                paused += 1
                continue
            policy, counted = self._wishes.policy_of(preset), counts.get(preset.preset_id, _NOTHING)
            if not can_skip(policy, counted):
                plans[preset.preset_id] = plan(
                    policy,
                    counted,
                    histories.get(preset.preset_id, _NO_HISTORY),
                    moment.at,
                    self._config,
                    template_starting=starting.get(preset.template_id, 0),
                )
        return Snapshot(moment, presets, plans, paused)

    async def _work_on(self, preset_id: PresetId) -> Done | _Outcome:
        async with self._slots:
            try:
                done = await self._database.run("reconcile", lambda tx: self._reconcile(tx, preset_id))
            except Refusal as refusal:
                _log.warning("pool was not reconciled", preset_id=preset_id, reason=refusal.reason, cause=str(refusal))
                if refusal.reason in _PASSING:
                    self._hints.add_refused(preset_id)
                return _Outcome.FAILED
            except Exception:  # noqa: BLE001 - a loop's body: one pool's failure never stops the others
                _log.exception("pool was not reconciled", preset_id=preset_id)
                return _Outcome.FAILED
        if done is None:
            self._hints.add_held(preset_id)
            return _Outcome.HELD
        return done

    async def _reconcile(self, tx: Transaction, preset_id: PresetId) -> Done | None:
        """Work on one pool; None where somebody else does. Locks its preset, then what execution locks."""
        if not await lock_preset(tx, preset_id):
            return None
        # Later statements than the lock's: they see what whoever held it before has committed.
        moment = await read_moment(tx)
        presets = await read_presets(tx, [preset_id])
        if not presets or presets[0].paused_at is not None or moment.is_paused:
            return Done()
        preset = presets[0]
        prebuilds = (await read_prebuilds(tx, [preset_id])).get(preset_id, ())
        histories = await self._histories(tx, [preset_id])
        starting = await self._starting(tx, presets)
        policy = self._wishes.policy_of(preset)
        planned = plan(
            policy,
            count(policy, prebuilds, moment.at),
            histories.get(preset_id, _NO_HISTORY),
            moment.at,
            self._config,
            template_starting=starting.get(preset.template_id, 0),
        )
        done = await execute(tx, preset, name_deletions(planned, policy, prebuilds, moment.at))
        if done != Done():
            _log.info(
                "pool reconciled",
                preset_id=preset_id,
                preset=preset.preset_name,
                template=preset.template_name,
                target=planned.target.instances,
                source=planned.target.source,
                running=planned.state.actual,
                starting=planned.state.starting,
                created=done.created,
                deleted=done.deleted,
                canceled=done.canceled,
                blocked_by=[block.value for block in planned.blocks],
            )
        return done

    async def _histories(self, tx: Transaction, preset_ids: Sequence[PresetId]) -> Mapping[PresetId, History]:
        return await read_histories(tx, preset_ids, lookback=self._lookback, hard_limit=max(self._config.hard_limit, 1))

    @staticmethod
    async def _starting(tx: Transaction, presets: Sequence[PresetRow]) -> Mapping[TemplateId, int]:
        bounded = {preset.template_id for preset in presets if preset.max_starting is not None}
        return await count_starting(tx, sorted(bounded)) if bounded else {}

    @staticmethod
    def _statistics(
        snapshot: Snapshot, outcomes: Sequence[Done | _Outcome], snapshot_took: timedelta, took: timedelta
    ) -> PassStatistics:
        done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        others = Counter(outcome for outcome in outcomes if isinstance(outcome, _Outcome))
        return PassStatistics(
            started_at=snapshot.moment.at,
            seen=len(snapshot.presets),
            skipped=len(snapshot.presets) - snapshot.paused - len(outcomes),
            reconciled=len(done),
            held_elsewhere=others[_Outcome.HELD],
            paused=snapshot.paused,
            failed=others[_Outcome.FAILED],
            created=sum(each.created for each in done),
            deleted=sum(each.deleted for each in done),
            canceled=sum(each.canceled for each in done),
            backing_off=sum(Block.BACKING_OFF in planned.blocks for planned in snapshot.plans.values()),
            snapshot_duration=snapshot_took,
            duration=took,
        )
