"""The end of a build, whoever brings it about: a daemon's report, a lost lease, a cancellation (behaviour section 7).

One transaction ends build and job, moves the pool row or the claim, retires agents and tells the news. It starts from
the job and therefore finds the ids without locks, then locks pool row, workspace, build, job in that order. Crash
before the commit: nothing happened, the daemon repeats its report or its lease expires. Crash after it: the repeated
report finds the job finished and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never
from uuid import UUID

from psycopg.types.json import Jsonb

from prebuilds.domain.builds import BackendKind, BuildOutcome, BuildReason, FailureClass, JobStatus, Transition
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import (
    BuildId,
    JobId,
    OrganizationId,
    PresetId,
    UserId,
    VersionId,
    WorkspaceId,
)
from prebuilds.domain.pools import PoolEventKind, PrebuildState
from prebuilds.store.handover.moves import fail, make_due
from prebuilds.store.jobs.news import build_changed
from prebuilds.store.outbox.writer import Event, append_many
from prebuilds.store.pool.connections import refresh_connections
from prebuilds.store.pool.deaths import fail_dead_prebuilds
from prebuilds.store.pool.endings import end_build_of_prebuild, remove_workspaces
from prebuilds.store.pool.locks import LockedWorkspace, lock_prebuild_and_workspace
from prebuilds.store.pool.readiness import refresh_readiness
from prebuilds.store.pool_events import PoolEvent, record_pool_events
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.jobs")


@dataclass(frozen=True, slots=True)
class LockedJob:
    """A job and its build as they are under their locks."""

    job_id: JobId
    build_id: BuildId
    workspace_id: WorkspaceId
    organization_id: OrganizationId
    number: int
    transition: Transition
    reason: BuildReason
    generation: int
    version_id: VersionId
    preset_id: PresetId | None
    initiator_id: UserId
    owner_id: UserId
    backend: BackendKind
    tags: Mapping[str, str]
    status: JobStatus
    attempt: int
    lease_id: UUID | None
    lease_expires_at: datetime | None
    cancel_requested_at: datetime | None
    created_at: datetime
    traceparent: str | None
    looked_at: datetime
    """The database's time at which all of this was so."""

    def changed(self) -> Event:
        """Make the news that its build is no longer what it was."""
        return build_changed(
            self.workspace_id,
            self.organization_id,
            build_id=self.build_id,
            preset_id=self.preset_id,
            owner_id=self.owner_id,
        )


@dataclass(frozen=True, slots=True)
class BuildResult:
    """How a build ended and what it left."""

    outcome: BuildOutcome
    failure_class: FailureClass | None = None
    error: str = ""
    provisioner_state: bytes | None = None
    host: str | None = None
    daily_cost: int | None = None
    agents: Sequence[str] | None = None
    """The agents that exist after a start, by name; None leaves them as they are."""
    report: Mapping[str, object] | None = None
    """What the daemon told for people: resources, replacements, timings."""
    lease_id: UUID | None = None
    """The lease whose holder reported the end, so that its repetition is known; None where somebody else ended it."""


async def lock_job(tx: Transaction, job_id: JobId) -> tuple[LockedWorkspace, LockedJob] | None:
    """Lock a job with all that its end changes: pool row, workspace, build, job. None where there is no such job."""
    cursor = await tx.run(_queries["find_job"], {"job_id": job_id})
    found = await cursor.fetchone()
    if found is None:
        return None
    build_id, workspace_id = found
    workspace = await lock_prebuild_and_workspace(tx, workspace_id)
    job = await tx.fetch_one(_queries["lock_job"], {"build_id": build_id}, row=LockedJob)
    return (workspace, job) if workspace and job else None


async def finish_build(tx: Transaction, workspace: LockedWorkspace, job: LockedJob, result: BuildResult) -> None:
    """End a build that `lock_job` has locked and that is not finished yet."""
    await tx.run(
        _queries["finish_build"],
        {
            "build_id": job.build_id,
            "outcome": result.outcome,
            "failure_class": result.failure_class,
            "error": result.error,
            "provisioner_state": result.provisioner_state,
            "host": result.host,
            "daily_cost": result.daily_cost,
            "report": None if result.report is None else Jsonb(result.report),
            "lease_id": result.lease_id,
        },
    )
    if result.agents is not None:
        await _retire_agents(tx, job, result.agents)
    if job.reason is BuildReason.CLAIM:
        await _end_claim_build(tx, workspace, result)
    elif job.transition is Transition.DELETE and result.outcome is BuildOutcome.SUCCEEDED:
        await remove_workspaces(tx, [job.workspace_id])
    else:
        await _end_other_build(tx, job, result)
    await append_many(tx, [job.changed()])


async def _retire_agents(tx: Transaction, job: LockedJob, present: Sequence[str]) -> None:
    retired = await tx.run(_queries["retire_agents"], {"workspace_id": job.workspace_id, "present": list(present)})
    if retired.rowcount:
        payload = {"workspace_id": str(job.workspace_id), "build_id": str(job.build_id)}
        await append_many(tx, [Event(EventKind.AGENT_REVOKED, job.workspace_id, job.organization_id, payload)])


async def _end_claim_build(tx: Transaction, workspace: LockedWorkspace, result: BuildResult) -> None:
    match result.outcome:
        case BuildOutcome.SUCCEEDED:
            await make_due(tx, workspace)
        case BuildOutcome.FAILED:
            await fail(tx, workspace, f"the claim build failed: {result.error}")
        case BuildOutcome.CANCELED:
            await fail(tx, workspace, "the claim build was canceled")
        case _:
            assert_never(result.outcome)


async def _end_other_build(tx: Transaction, job: LockedJob, result: BuildResult) -> None:
    state = _state_left_by(job.transition, result.outcome)
    pool = await end_build_of_prebuild(
        tx, job.workspace_id, state, failure_class=result.failure_class, daily_cost=result.daily_cost
    )
    if pool is None:
        return
    # An agent may have failed its startup, or have been retired, before its build completed.
    await fail_dead_prebuilds(tx, [job.workspace_id])
    await refresh_connections(tx, [job.workspace_id])
    await refresh_readiness(tx, [job.workspace_id])
    if state is PrebuildState.FAILED:
        failed = PoolEvent(
            pool.organization_id,
            pool.template_id,
            pool.preset_name,
            PoolEventKind.FAILED,
            reason=f"{job.transition} failed",
            failure_class=result.failure_class,
            workspace_id=job.workspace_id,
        )
        await record_pool_events(tx, [failed])


def _state_left_by(transition: Transition, outcome: BuildOutcome) -> PrebuildState:
    match outcome:
        case BuildOutcome.SUCCEEDED:
            return PrebuildState.RUNNING if transition is Transition.START else PrebuildState.STOPPED
        case BuildOutcome.FAILED:
            return PrebuildState.FAILED
        case BuildOutcome.CANCELED:
            return PrebuildState.CANCELED
        case _:
            assert_never(outcome)
