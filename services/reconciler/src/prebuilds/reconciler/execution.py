"""Execution of one pool's plan, in the transaction that has locked its preset (behaviour section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import structlog

from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.domain.refusals import Refusal
from prebuilds.reconciler.queries.pools import PresetRow, read_values
from prebuilds.reconciler.rules.planner import BackOff, CancelPending, Create, Delete, DeleteReason, Plan
from prebuilds.store.faults import Fault
from prebuilds.store.pool.filling import cancel_pending, create_prebuilds, find_pending, mark_deleting
from prebuilds.store.pool.locks import lock_prebuilds, lock_workspaces
from prebuilds.store.transactions import Transaction

_BELOW_TARGET = "below_target"
_INACTIVE = "inactive"

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to one pool."""

    created: int = 0
    deleted: int = 0
    canceled: int = 0


async def execute(tx: Transaction, preset: PresetRow, plan: Plan) -> Done:
    """Do what the plan says, in its order, which has deletes before creates.

    A failure to cancel is logged and does not stop the other actions. Locks first what all deletes and cancellations
    lock, pool rows and then workspaces, since the actions one after the other would not keep that order.
    """
    doomed = [id_ for action in plan.actions if isinstance(action, Delete) for id_ in action.workspace_ids]
    cancels = any(isinstance(action, CancelPending) for action in plan.actions)
    pending = await find_pending(tx, preset.key) if cancels else ()
    if concerned := {*doomed, *pending}:
        await lock_workspaces(tx, sorted(await lock_prebuilds(tx, sorted(concerned))))
    created = deleted = canceled = 0
    for action in plan.actions:
        match action:
            case CancelPending():
                canceled += await _cancel(tx, preset, pending)
            case Delete(reason=reason, workspace_ids=workspace_ids):
                kind = PoolEventKind.EXPIRED if reason is DeleteReason.EXPIRED else PoolEventKind.DELETED
                marked = await mark_deleting(tx, preset.key, workspace_ids, kind=kind, reason=reason.value)
                deleted += len(marked)
            case Create(count=count):
                created += await _create(tx, preset, count)
            case BackOff():
                pass  # To wait is not to do anything.
            case _:
                assert_never(action)
    return Done(created, deleted, canceled)


async def _cancel(tx: Transaction, preset: PresetRow, pending: Sequence[WorkspaceId]) -> int:
    try:
        async with tx.savepoint():
            return len(await cancel_pending(tx, preset.key, pending, reason=_INACTIVE))
    except (Fault, Refusal):
        # The other actions go on, and the next pass tries again.
        _log.exception("queued prebuilds were not canceled", preset_id=preset.preset_id)
        return 0


async def _create(tx: Transaction, preset: PresetRow, count: int) -> int:
    values = await read_values(tx, preset.preset_id)
    missing = sorted(name for name, value in values.items() if value is None)
    if missing:
        _log.error("prebuilds were not created: parameters have no value", preset_id=preset.preset_id, missing=missing)
        return 0
    parameters = {name: value for name, value in values.items() if value is not None}
    queued = await create_prebuilds(tx, preset.key, count, parameters=parameters, reason=_BELOW_TARGET)
    return len(queued)
