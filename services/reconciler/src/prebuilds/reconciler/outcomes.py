"""What became of the pools of a pass, for those who ask and for the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from prebuilds.reconciler.execution import Done
from prebuilds.reconciler.planning import Planned, Snapshot

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


class Outcome(StrEnum):
    """What came of a pool that was not worked on."""

    HELD = "held_elsewhere"
    QUOTA_HELD = "quota_held_elsewhere"
    SEEN_TO = "seen_to"
    PAUSED = "paused"
    FAILED = "failed"


def count_up(
    snapshot: Snapshot, outcomes: Sequence[Done | Outcome], snapshot_took: timedelta, took: timedelta
) -> PassStatistics:
    """Add up what became of the pools of a snapshot."""
    done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
    others = Counter(outcome for outcome in outcomes if isinstance(outcome, Outcome))
    return PassStatistics(
        started_at=snapshot.moment.at,
        seen=snapshot.seen,
        skipped=snapshot.seen - snapshot.paused - len(outcomes) + others[Outcome.SEEN_TO],
        reconciled=len(done),
        held_elsewhere=others[Outcome.HELD] + others[Outcome.QUOTA_HELD],
        paused=snapshot.paused + others[Outcome.PAUSED],
        failed=others[Outcome.FAILED],
        created=sum(each.created for each in done),
        deleted=sum(each.deleted for each in done),
        canceled=sum(each.canceled for each in done),
        backing_off=snapshot.backing_off,
        snapshot_duration=snapshot_took,
        duration=took,
    )


def tell(planned: Planned, done: Done) -> None:
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
