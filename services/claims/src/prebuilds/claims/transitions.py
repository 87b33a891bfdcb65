"""Starting, stopping and deleting workspaces, and cancelling builds; none of it claims (behaviour section 6).

Each is one transaction: request, pool row, workspace, build with its job, and what that ends. Who asks is looked at
again under the workspace's lock, for it may have been claimed between the first look and the lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import assert_never
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.patterns import matches
from prebuilds.chassis.policy import Action, Resource
from prebuilds.claims.access import require_change, visible_workspace
from prebuilds.claims.queries.filters import BuildFilter
from prebuilds.claims.queries.naming import Named
from prebuilds.claims.queries.offers import find_version
from prebuilds.claims.queries.views import BuildView, WorkspaceView
from prebuilds.claims.queries.workspaces import (
    find_build,
    list_builds,
    pool_of,
    read_workspaces,
)
from prebuilds.claims.rules.parameters import all_values, changed_problems, provided_problems
from prebuilds.domain.builds import BuildOutcome, BuildReason, JobStatus, Transition
from prebuilds.domain.ids import BuildId, UserId, VersionId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.audit import Actor, AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.jobs.canceling import request_cancel
from prebuilds.store.jobs.finishing import BuildResult, finish_build, lock_job
from prebuilds.store.jobs.queueing import BuildOrder, queue_builds
from prebuilds.store.pool.beginnings import begin_build_of_prebuild
from prebuilds.store.pool.filling import PoolKey, mark_deleting
from prebuilds.store.pool.locks import LockedWorkspace, lock_prebuild_and_workspace
from prebuilds.store.requests import RequestKey, admit, fingerprint, first_answer, set_answer
from prebuilds.store.transactions import Transaction
from prebuilds.store.workspaces.lifecycle import begin_build


@dataclass(frozen=True, slots=True)
class Change:
    """A request for a build of a workspace, read."""

    workspace_id: WorkspaceId
    transition: Transition
    request_id: str
    version: Named | None = None
    """Of a start: the version to build; None: the one that it has."""
    parameters: Mapping[str, str] | None = None
    """Of a start: values to change."""

    @property
    def method(self) -> str:
        """The method's name, under which its request ids are kept."""
        return f"{self.transition.value.capitalize()}Workspace"

    def plain_values(self) -> dict[str, object]:
        """Give what makes this request another one, for its fingerprint."""
        return {
            "id": str(self.workspace_id),
            "version": self.version and self.version.text,
            "parameters": dict(self.parameters or {}),
        }


@dataclass(frozen=True, slots=True)
class Changed:
    """A workspace and the build that was queued for it."""

    workspace: WorkspaceView
    build: BuildView


class _UsedBeforeError(Exception):
    """The request id is on record: roll back and read the first answer."""

    def __init__(self, key: RequestKey) -> None:
        super().__init__(key.request_id)
        self.key = key


class Transitions:
    """Queues builds of workspaces, and cancels them."""

    def __init__(self, database: Database) -> None:
        """Write to this database."""
        self._database = database

    async def change(self, caller: Caller, change: Change) -> Changed:
        """Queue a build; a request id that was used before gets the first answer.

        Raises Refusal NOT_FOUND, PERMISSION_DENIED, BUILD_UNFINISHED, REQUEST_ID_REUSED, and for a start INVALID_FIELDS
        and TEMPLATE_DELETED.
        """
        content = fingerprint(change.plain_values())
        work = partial(_change, caller=caller, change=change, content=content)
        try:
            return await self._database.run(f"{change.transition} workspace", work)
        except _UsedBeforeError as used:
            return await _answered(self._database, used.key, content)

    async def cancel(self, caller: Caller, build_id: BuildId) -> BuildView:
        """Cancel a build that waits for a daemon at once, and ask the daemon that has one to give it up.

        Raises Refusal NOT_FOUND, PERMISSION_DENIED, and JOB_FINISHED for one that has ended.
        """
        work = partial(_cancel, caller=caller, build_id=build_id)
        return await self._database.run("cancel build", work)


async def _change(tx: Transaction, *, caller: Caller, change: Change, content: bytes) -> Changed:
    person = caller.person()
    whose = await visible_workspace(tx, caller, change.workspace_id)
    require_change(caller, whose, _action(change.transition))
    key = RequestKey(whose.organization_id, caller.key, change.method, change.request_id)
    if not await admit(tx, key, content, {}):
        raise _UsedBeforeError(key)
    locked = await lock_prebuild_and_workspace(tx, change.workspace_id)
    if locked is None or locked.deleted:
        raise Refusal.not_found("workspace", str(change.workspace_id))
    pool = await pool_of(tx, change.workspace_id)
    require_change(
        caller, replace(whose, owner_id=locked.owner_id, is_prebuild=pool is not None), _action(change.transition)
    )
    try:
        build_id = await _queue_for(tx, change, locked, pool, person.user_id)
    except Refusal as refusal:
        if refusal.reason is Reason.BUILD_UNFINISHED:
            raise _unfinished(locked) from refusal
        raise
    await _record(tx, caller, change, locked)
    await set_answer(tx, key, {"build_id": str(build_id)})
    (workspace,) = await read_workspaces(tx, [locked.workspace_id], last=True)
    return Changed(workspace, workspace.build)


async def _queue_for(
    tx: Transaction, change: Change, locked: LockedWorkspace, pool: PoolKey | None, initiator_id: UserId
) -> BuildId:
    match change.transition:
        case Transition.START:
            if pool is not None:
                _require_unchanged(change)
            return await _start(tx, change, locked, initiator_id)
        case Transition.DELETE if pool is not None:
            marked = await mark_deleting(
                tx,
                pool,
                [locked.workspace_id],
                kind=PoolEventKind.DELETED,
                reason="somebody asked for it",
                initiator_id=initiator_id,
            )
            if not marked:
                raise _unfinished()
            return marked[0].build_id
        case Transition.STOP | Transition.DELETE:
            order = BuildOrder(locked.workspace_id, change.transition, BuildReason.USER, initiator_id)
            return await _queue(tx, order)
        case _:
            assert_never(change.transition)


def _require_unchanged(change: Change) -> None:
    """Whoever claims a prebuild gets what its preset says, so a restart leaves version and values alone."""
    if change.version is not None or change.parameters:
        raise Refusal(
            Reason.SYSTEM_OWNED,
            "a prebuild is restarted as it is: version and parameters are those of its preset",
            metadata={"subject": f"workspace:{change.workspace_id}"},
        )


async def _start(tx: Transaction, change: Change, locked: LockedWorkspace, initiator_id: UserId) -> BuildId:
    wanted = await find_version(tx, locked.workspace_id, change.version)
    if wanted is None or wanted.version_id is None:
        raise Refusal.not_found("version", change.version.text if change.version else "")
    if wanted.template_deleted:
        raise Refusal(
            Reason.TEMPLATE_DELETED,
            "the template is deleted",
            metadata={"subject": f"template:{locked.template_id}"},
        )
    changes = change.parameters or {}
    known = {parameter.name for parameter in wanted.parameters}
    kept = {name: value for name, value in wanted.current.items() if name in known}
    problems = list(changed_problems(wanted.parameters, changes, matches))
    if not wanted.is_current:
        # What the workspace has may be no value of another version, or leave a parameter of it open.
        problems += [
            problem
            for problem in provided_problems(wanted.parameters, kept | dict(changes), {}, matches)
            if problem.field not in {f"parameters.{name}" for name in changes}
        ]
    if problems:
        raise Refusal.invalid(*problems)
    values = all_values(wanted.parameters, kept | dict(changes), {})
    order = BuildOrder(
        locked.workspace_id,
        Transition.START,
        BuildReason.USER,
        initiator_id,
        version_id=VersionId(wanted.version_id),
        parameters=values,
    )
    return await _queue(tx, order)


async def _queue(tx: Transaction, order: BuildOrder) -> BuildId:
    await begin_build(tx, order.workspace_id, order.transition)
    if order.transition is not Transition.DELETE:
        await begin_build_of_prebuild(tx, order.workspace_id, order.transition)
    (queued,) = await queue_builds(tx, [order])
    return queued.build_id


async def _cancel(tx: Transaction, *, caller: Caller, build_id: BuildId) -> BuildView:
    place = await find_build(tx, build_id)
    if place is None:
        raise Refusal.not_found("build", str(build_id))
    whose = await visible_workspace(tx, caller, place.workspace_id, kind="build", text=str(build_id))
    require_change(caller, whose, Action.UPDATE)
    locked = await lock_job(tx, place.job_id) if place.job_id else None
    if locked is None or locked[1].status.is_finished:
        raise Refusal(Reason.JOB_FINISHED, "the build has ended", metadata={"subject": f"build:{build_id}"})
    workspace, job = locked
    require_change(caller, replace(whose, owner_id=workspace.owner_id), Action.UPDATE)
    if job.status is JobStatus.PENDING:
        await finish_build(tx, workspace, job, BuildResult(BuildOutcome.CANCELED))
    elif job.status is JobStatus.RUNNING:
        await request_cancel(tx, job)
    if job.status is not JobStatus.CANCELING:
        actor = Actor(caller.key, caller.person().name)
        await record_deed(tx, AuditEntry(actor, "cancel", "build", build_id, workspace.name, whose.organization_id))
    (build,) = await list_builds(tx, BuildFilter(place.workspace_id, build_id))
    return build


async def _record(tx: Transaction, caller: Caller, change: Change, locked: LockedWorkspace) -> None:
    await record_deed(
        tx,
        AuditEntry(
            Actor(caller.key, caller.person().name),
            change.transition.value,
            Resource.WORKSPACE.value,
            locked.workspace_id,
            locked.name,
            locked.organization_id,
        ),
    )


async def _answered(database: Database, key: RequestKey, content: bytes) -> Changed:
    async with database.read("first answer") as tx:
        answer = await first_answer(tx, key, content)
        place = None if answer is None else await find_build(tx, BuildId(UUID(answer["build_id"])))
        if answer is None or place is None:
            raise Refusal(Reason.TRANSACTION_CONFLICT, "a request of this id has just failed")
        (workspace,) = await read_workspaces(tx, [place.workspace_id])
        (build,) = await list_builds(tx, BuildFilter(place.workspace_id, BuildId(UUID(answer["build_id"]))))
    return Changed(workspace, build)


def _action(transition: Transition) -> Action:
    return Action.DELETE if transition is Transition.DELETE else Action.UPDATE


def _unfinished(locked: LockedWorkspace | None = None) -> Refusal:
    metadata = {"subject": f"build:{locked.latest_build_id}"} if locked else {}
    return Refusal(Reason.BUILD_UNFINISHED, "the workspace has an unfinished build", metadata=metadata)
