"""Execution of one pool's plan, in the transaction that has locked its preset (behaviour section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

import structlog

from prebuilds.chassis.patterns import matches
from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.notifications import NotificationKind
from prebuilds.domain.pools import PoolEventKind, PresetStatus
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Refusal
from prebuilds.reconciler.faults import MAX_MESSAGE, last_faults
from prebuilds.reconciler.planning import Planned
from prebuilds.reconciler.queries.pools import PresetRow
from prebuilds.reconciler.queries.statuses import mark_over_quota, set_status
from prebuilds.reconciler.rules.planner import BackOff, CancelPending, Create, Delete, DeleteReason, Plan
from prebuilds.reconciler.rules.values import problems_of, values_of
from prebuilds.store.faults import Fault
from prebuilds.store.notifications import Notification, notify
from prebuilds.store.pool.filling import cancel_pending, create_prebuilds, find_pending, mark_deleting
from prebuilds.store.pool.locks import lock_prebuilds_and_workspaces
from prebuilds.store.transactions import Transaction

_INACTIVE: Final = "inactive"

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to one pool."""

    created: int = 0
    deleted: int = 0
    canceled: int = 0
    status: PresetStatus | None = None
    """What the preset's status has become; None: it stayed."""
    message: str = ""
    """Why, for people."""
    is_over_quota: bool | None = None
    """Whether the pool has come to be kept from its target by the allowance; None: nothing new."""


async def execute(tx: Transaction, planned: Planned) -> Done:
    """Do what the plan says: change the preset, then the actions in their order, which has deletes before creates.

    A failure to cancel is logged and does not stop the other actions; a preset that turns out to be invalid creates
    nothing and has its status say so. Where several actions lock pool rows and then workspaces, all of these are locked
    first, since one action after the other would not keep that order. A create, where there is one, is the last action
    and commits.
    """
    preset, plan = planned.preset, planned.plan
    done = await _change_preset(tx, preset, plan)
    doomed = [id_ for action in plan.actions if isinstance(action, Delete) for id_ in action.workspace_ids]
    cancels = any(isinstance(action, CancelPending) for action in plan.actions)
    pending = await find_pending(tx, preset.key) if cancels else ()
    locking = sum(isinstance(action, Delete | CancelPending) for action in plan.actions)
    if locking > 1 and (concerned := {*doomed, *pending}):
        await lock_prebuilds_and_workspaces(tx, sorted(concerned))
    for action in plan.actions:
        match action:
            case CancelPending():
                done = replace(done, canceled=await _cancel(tx, preset, pending))
            case Delete():
                done = replace(done, deleted=done.deleted + await _delete(tx, preset, action))
            case Create():
                done = await _create(tx, planned, action, done)
            case BackOff():
                pass  # To wait is not to do anything.
            case _:
                assert_never(action)
    return done


async def _change_preset(tx: Transaction, preset: PresetRow, plan: Plan) -> Done:
    message = ""
    if plan.status is PresetStatus.HARD_LIMITED:
        message = (await last_faults(tx, [preset.preset_id])).get(preset.preset_id, "")
        await notify(tx, _hard_limited(preset, message))
    if plan.status is not None:
        await set_status(tx, preset.preset_id, plan.status, message)
    if plan.is_over_quota is not None:
        await mark_over_quota(tx, preset.preset_id, is_over_quota=plan.is_over_quota)
    return Done(status=plan.status, message=message, is_over_quota=plan.is_over_quota)


async def _cancel(tx: Transaction, preset: PresetRow, pending: Sequence[WorkspaceId]) -> int:
    try:
        async with tx.savepoint():
            return len(await cancel_pending(tx, preset.key, pending, reason=_INACTIVE))
    except (Fault, Refusal):
        # The other actions go on, and the next pass tries again.
        _log.exception("queued prebuilds were not canceled", preset_id=preset.preset_id)
        return 0


async def _delete(tx: Transaction, preset: PresetRow, action: Delete) -> int:
    kind = PoolEventKind.EXPIRED if action.reason is DeleteReason.EXPIRED else PoolEventKind.DELETED
    return len(await mark_deleting(tx, preset.key, action.workspace_ids, kind=kind, reason=action.reason.value))


async def _create(tx: Transaction, planned: Planned, action: Create, done: Done) -> Done:
    preset = planned.preset
    if problems := "; ".join(problems_of(planned.values, matches)):
        message = problems[:MAX_MESSAGE]
        await set_status(tx, preset.preset_id, PresetStatus.VALIDATION_FAILED, message)
        return replace(done, status=PresetStatus.VALIDATION_FAILED, message=message)
    queued = await create_prebuilds(
        tx,
        preset.key,
        action.count,
        parameters=values_of(planned.values),
        reason=action.reason.value,
        daily_cost=planned.quota.cost if planned.quota else 0,
        last=action is planned.plan.actions[-1],
    )
    return replace(done, created=len(queued))


def _hard_limited(preset: PresetRow, error: str) -> Notification:
    return Notification(
        preset.organization_id,
        Role.TEMPLATE_ADMIN,
        NotificationKind.PRESET_HARD_LIMITED,
        preset.preset_id,
        title=f"Prebuilds of {preset.template_name} / {preset.preset_name} keep failing",
        body=(
            f"The newest builds of preset {preset.preset_name} in version {preset.version_name} of template"
            f" {preset.template_name} all failed by the template's fault, so no more are made. Push a version that is"
            f" mended, or have one more tried by RetryPreset of {preset.preset_id}.\n\nThe last error:\n{error}"
        ),
    )
