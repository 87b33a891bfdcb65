"""Pools and passes as protobuf."""

from __future__ import annotations

from typing import Final, assert_never

from prebuilds.chassis.messages import duration, timestamp
from prebuilds.reconciler.inspecting import BlockKind, BlockView, PoolView
from prebuilds.reconciler.outcomes import PassStatistics
from prebuilds.reconciler.queries.views import Pause, PauseScope
from prebuilds.reconciler.rpc.messages import STATUSES, text_of
from prebuilds.reconciler.rules.planner import Action, BackOff, CancelPending, Create, Delete, DeleteReason
from prebuilds.reconciler.rules.target import TargetSource
from prebuilds.v1 import pool_pb2

_SOURCES: Final = {
    TargetSource.INSTANCES: pool_pb2.TARGET_SOURCE_INSTANCES,
    TargetSource.SCHEDULE: pool_pb2.TARGET_SOURCE_SCHEDULE,
    TargetSource.INACTIVE: pool_pb2.TARGET_SOURCE_INACTIVE,
}
_REASONS: Final = {
    DeleteReason.EXPIRED: pool_pb2.ACTION_REASON_EXPIRED,
    DeleteReason.EXTRANEOUS: pool_pb2.ACTION_REASON_EXTRANEOUS,
    DeleteReason.INACTIVE: pool_pb2.ACTION_REASON_INACTIVE,
}
_BLOCKS: Final = {
    BlockKind.BACKING_OFF: pool_pb2.BLOCK_KIND_BACKING_OFF,
    BlockKind.HARD_LIMITED: pool_pb2.BLOCK_KIND_HARD_LIMITED,
    BlockKind.VALIDATION_FAILED: pool_pb2.BLOCK_KIND_VALIDATION_FAILED,
    BlockKind.MAX_STARTING: pool_pb2.BLOCK_KIND_MAX_STARTING,
    BlockKind.OVER_QUOTA: pool_pb2.BLOCK_KIND_OVER_QUOTA,
    BlockKind.PAUSED: pool_pb2.BLOCK_KIND_PAUSED,
}
SCOPES: Final = {
    PauseScope.DEPLOYMENT: pool_pb2.PAUSE_SCOPE_DEPLOYMENT,
    PauseScope.TEMPLATE: pool_pb2.PAUSE_SCOPE_TEMPLATE,
    PauseScope.PRESET: pool_pb2.PAUSE_SCOPE_PRESET,
}


def pool_message(view: PoolView) -> pool_pb2.Pool:
    """A pool at one moment."""
    preset, state, counts = view.preset, view.plan.state, view.counts
    return pool_pb2.Pool(
        id=str(preset.preset_id),
        name=preset.preset_name,
        organization_id=str(preset.organization_id),
        template_id=str(preset.template_id),
        template_name=preset.template_name,
        version_id=str(preset.version_id),
        version_name=preset.version_name,
        active=preset.is_active,
        status=STATUSES[preset.status],
        target=_target(view),
        counts=pool_pb2.PoolCounts(
            desired=state.desired,
            actual=state.actual,
            eligible=state.eligible,
            expired=state.expired,
            extraneous=state.extraneous,
            starting=state.starting,
            stopping=state.stopping,
            deleting=state.deleting,
            parked=counts.parked,
            failed=counts.failed,
            waiting=view.waiting,
        ),
        plan=map(_action, view.plan.actions),
        blocked_by=map(_block, view.blocks),
        error=view.error,
        snapshot_time=timestamp(view.at),
    )


def pause_message(pause: Pause | None) -> pool_pb2.Pause | None:
    """A pause; unset where there is none."""
    if pause is None:
        return None
    return pool_pb2.Pause(
        scope=SCOPES[pause.scope],
        target_id=text_of(pause.target_id),
        message=pause.message,
        creator_id=text_of(pause.creator_id),
        creator_name=pause.creator_name,
        create_time=timestamp(pause.created_at),
    )


def statistics_message(statistics: PassStatistics) -> pool_pb2.PassStatistics:
    """What a pass saw and did."""
    return pool_pb2.PassStatistics(
        presets_seen=statistics.seen,
        presets_skipped=statistics.skipped,
        presets_reconciled=statistics.reconciled,
        presets_held_elsewhere=statistics.held_elsewhere,
        presets_paused=statistics.paused,
        presets_failed=statistics.failed,
        created=statistics.created,
        deleted=statistics.deleted,
        canceled=statistics.canceled,
        backing_off=statistics.backing_off,
        start_time=timestamp(statistics.started_at),
        snapshot_duration=duration(statistics.snapshot_duration),
        duration=duration(statistics.duration),
    )


def _target(view: PoolView) -> pool_pb2.PoolTarget:
    target, change = view.plan.target, view.next_change
    return pool_pb2.PoolTarget(
        instances=target.instances,
        source=_SOURCES[target.source],
        schedule_index=target.schedule_index,
        next_change_time=None if change is None else timestamp(change.at),
        next_instances=None if change is None else change.instances,
    )


def _action(action: Action) -> pool_pb2.Action:
    match action:
        case Create(count=count):
            return pool_pb2.Action(
                reason=pool_pb2.ACTION_REASON_BELOW_TARGET, create=pool_pb2.CreateAction(count=count)
            )
        case Delete(reason=reason, workspace_ids=workspace_ids):
            return pool_pb2.Action(
                reason=_REASONS[reason], delete=pool_pb2.DeleteAction(workspace_ids=map(str, workspace_ids))
            )
        case CancelPending(count=count):
            return pool_pb2.Action(
                reason=pool_pb2.ACTION_REASON_INACTIVE, cancel_pending=pool_pb2.CancelPendingAction(count=count)
            )
        case BackOff(until=until, failures=failures):
            return pool_pb2.Action(
                reason=pool_pb2.ACTION_REASON_RECENT_FAILURES,
                back_off=pool_pb2.BackOffAction(until_time=timestamp(until), failure_count=failures),
            )
        case _:
            assert_never(action)


def _block(block: BlockView) -> pool_pb2.PoolBlock:
    return pool_pb2.PoolBlock(
        kind=_BLOCKS[block.kind],
        since_time=timestamp(block.since),
        until_time=timestamp(block.until),
        detail=block.detail,
        pause=pause_message(block.pause),
    )
