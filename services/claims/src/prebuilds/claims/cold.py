"""Building a workspace cold, and what is remembered of a miss."""

from __future__ import annotations

from prebuilds.claims.attempts import Attempt, Creation
from prebuilds.claims.queries.offers import read_standing
from prebuilds.claims.queries.workspaces import read_workspaces
from prebuilds.claims.wishes import require_usable
from prebuilds.domain.builds import BuildReason, Transition
from prebuilds.domain.claims import MissReason
from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.jobs.queueing import BuildOrder, queue_builds
from prebuilds.store.pool_events import PoolEvent, record_pool_events
from prebuilds.store.requests import admit, set_answer
from prebuilds.store.transactions import Transaction
from prebuilds.store.workspaces.lifecycle import NewWorkspace, create_workspace


async def build_cold(tx: Transaction, attempt: Attempt, miss: MissReason) -> Creation:
    """Make the workspace and queue its start build, with miss, audit and answer; the COMMIT travels with the last read.

    The request has been admitted by this transaction. Locks requests, workspaces, builds, jobs, agents, outbox. Raises
    Refusal NAME_TAKEN, and where the template is deprecated or deleted by now TEMPLATE_DEPRECATED or NOT_FOUND.
    """
    plan = attempt.plan
    await require_usable_now(tx, attempt)
    is_new = await _admit_miss(tx, attempt)
    workspace_id = await create_workspace(
        tx,
        NewWorkspace(
            plan.organization_id, plan.owner.user_id, attempt.name, plan.template.template_id, plan.ttl, plan.autostart
        ),
    )
    order = BuildOrder(
        workspace_id,
        Transition.START,
        BuildReason.USER,
        attempt.initiator_id,
        version_id=plan.version_id,
        preset_id=plan.preset.preset_id if plan.preset else None,
        parameters=plan.values,
    )
    (queued,) = await queue_builds(tx, [order])
    if is_new:
        await _record(tx, attempt, miss, workspace_id)
    await record_deed(
        tx,
        AuditEntry(
            attempt.actor,
            "create",
            "workspace",
            workspace_id,
            attempt.name,
            plan.organization_id,
            {"template": plan.template.name, "preset": plan.preset.name if plan.preset else "", "miss": miss.value},
        ),
    )
    await set_answer(tx, attempt.key, {"build_id": str(queued.build_id), "miss": miss.value})
    (workspace,) = await read_workspaces(tx, [workspace_id], last=True)
    return Creation(workspace, workspace.build, miss)


async def require_usable_now(tx: Transaction, attempt: Attempt) -> None:
    """Refuse a template that was deprecated or deleted since the plan was made: that may be why nothing is eligible."""
    template = attempt.plan.template
    require_usable(template, attempt.wish, await read_standing(tx, template.template_id))


async def record_miss(tx: Transaction, attempt: Attempt, miss: MissReason) -> None:
    """Remember a miss that is refused, once for each request id however often it is repeated. Locks requests."""
    if await _admit_miss(tx, attempt):
        await _record(tx, attempt, miss, None)


async def _admit_miss(tx: Transaction, attempt: Attempt) -> bool:
    return await admit(tx, attempt.key.of(f"{attempt.key.method}/missed"), attempt.content, {})


async def _record(tx: Transaction, attempt: Attempt, miss: MissReason, workspace_id: WorkspaceId | None) -> None:
    plan = attempt.plan
    event = PoolEvent(
        plan.organization_id,
        plan.template.template_id,
        plan.preset.name if plan.preset else "",
        PoolEventKind.MISSED,
        reason=miss.value,
        workspace_id=workspace_id,
        user_id=plan.owner.user_id,
    )
    await record_pool_events(tx, [event])
