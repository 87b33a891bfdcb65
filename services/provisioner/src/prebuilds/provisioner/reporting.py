"""What daemons report of their jobs: signs of life with log lines, and the end (behaviour section 7).

A report counts under the lease that holds the job, else it is refused with LEASE_LOST. The end is written in one
transaction with everything that follows from it (`store.jobs.finishing`), together with the lease under which it was
reported: the same report again, after a crash or a lost answer, finds it and gets the same answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

import structlog
from opentelemetry.metrics import Meter

from prebuilds.domain.builds import BuildOutcome, BuildReason, FailureClass, JobStatus, Transition
from prebuilds.domain.ids import JobId
from prebuilds.domain.principals import Daemon
from prebuilds.domain.refusals import Refusal, Violation
from prebuilds.provisioner.acquiring import HOST_TAG
from prebuilds.provisioner.queries.jobs import read_agent_names, read_job
from prebuilds.provisioner.queries.views import JobView
from prebuilds.provisioner.rules.results import NO_AGENT, agents_left
from prebuilds.store.database import Database
from prebuilds.store.jobs.finishing import BuildResult, LockedJob, finish_build, lock_job
from prebuilds.store.jobs.leasing import LogLine, lease_lost, renew, store_logs
from prebuilds.store.pool.locks import LockedWorkspace
from prebuilds.store.transactions import Transaction

NOT_ASKED: Final = "given up by its daemon, although nobody had asked"

_Accept: TypeAlias = Callable[[Transaction, LockedJob], Awaitable[BuildResult]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HeldLease:
    """The lease under which a daemon reports."""

    job_id: JobId
    lease_id: UUID


@dataclass(frozen=True, slots=True)
class LeaseState:
    """How a job's lease goes on."""

    expires_at: datetime
    lease_for: timedelta
    cancel_deadline: datetime | None
    """When the job is ended by force; None where nobody asked to cancel it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A good end."""

    agent_names: Sequence[str]
    daily_cost: int
    host_id: str
    report: Mapping[str, object]
    logs: Sequence[LogLine]
    provisioner_state: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """A bad end, or a cancellation; `failure_class` is None only where it was canceled."""

    error: str
    failure_class: FailureClass | None
    is_canceled: bool
    host_id: str
    report: Mapping[str, object]
    logs: Sequence[LogLine]
    provisioner_state: bytes | None = field(repr=False)
    """None leaves the state of the build before in force."""


class Reports:
    """Takes reports."""

    def __init__(self, database: Database, *, lease_for: timedelta, cancel_grace: timedelta, meter: Meter) -> None:
        """`cancel_grace` is what a daemon is told; a sweep keeps to it."""
        self._database = database
        self._lease_for = lease_for
        self._cancel_grace = cancel_grace
        self._took = meter.create_histogram(
            "prebuilds_workspace_creation_duration_seconds",
            unit="s",
            description="From the queueing of a start build to its good end, by type: prebuild, claim, or cold.",
        )

    async def update(self, key: Daemon, held: HeldLease, logs: Sequence[LogLine]) -> LeaseState:
        """Renew the lease and store lines. Raises Refusal LEASE_LOST, NOT_FOUND."""

        async def work(tx: Transaction) -> LeaseState:
            renewed = await renew(
                tx,
                held.job_id,
                held.lease_id,
                organization_id=key.organization_id,
                lease_for=self._lease_for,
            )
            await store_logs(tx, held.job_id, renewed.attempt, logs)
            asked_at = renewed.cancel_requested_at
            return LeaseState(
                renewed.lease_expires_at, self._lease_for, None if asked_at is None else asked_at + self._cancel_grace
            )

        return await self._database.run("update job", work)

    async def complete(self, key: Daemon, held: HeldLease, completion: Completion) -> JobView:
        """End a job well, or badly where its result cannot be accepted. Raises Refusal LEASE_LOST, NOT_FOUND."""
        host = _host(key, completion.host_id)

        async def accept(tx: Transaction, job: LockedJob) -> BuildResult:
            known = await read_agent_names(tx, job.workspace_id)
            agents = agents_left(job.transition, completion.agent_names, known)
            is_empty = agents is not None and not agents
            return BuildResult(
                BuildOutcome.FAILED if is_empty else BuildOutcome.SUCCEEDED,
                failure_class=FailureClass.TEMPLATE if is_empty else None,
                error=NO_AGENT if is_empty else "",
                provisioner_state=completion.provisioner_state,
                host=host,
                daily_cost=completion.daily_cost,
                agents=None if is_empty else agents,
                report=completion.report,
                lease_id=held.lease_id,
            )

        return await self._end("complete job", key, held, completion.logs, accept)

    async def fail(self, key: Daemon, held: HeldLease, failure: Failure) -> JobView:
        """End a job badly, or as cancelled. Raises Refusal LEASE_LOST, NOT_FOUND."""
        host = _host(key, failure.host_id)

        async def accept(_tx: Transaction, job: LockedJob) -> BuildResult:
            is_canceled = failure.is_canceled and job.cancel_requested_at is not None
            if is_canceled:
                failure_class, error = None, failure.error
            elif failure.is_canceled:
                failure_class, error = FailureClass.INFRASTRUCTURE, failure.error or NOT_ASKED
            else:
                failure_class, error = failure.failure_class, failure.error
            return BuildResult(
                BuildOutcome.CANCELED if is_canceled else BuildOutcome.FAILED,
                failure_class=failure_class,
                error=error,
                provisioner_state=failure.provisioner_state,
                host=host,
                report=failure.report,
                lease_id=held.lease_id,
            )

        return await self._end("fail job", key, held, failure.logs, accept)

    async def _end(self, name: str, key: Daemon, held: HeldLease, logs: Sequence[LogLine], accept: _Accept) -> JobView:
        async def work(tx: Transaction) -> tuple[JobView, bool]:
            _, job = locked = await _lock(tx, key, held.job_id)
            if job.lease_id != held.lease_id:
                raise lease_lost(held.job_id)
            if job.status.is_finished:
                return await read_job(tx, held.job_id), False
            await store_logs(tx, held.job_id, job.attempt, logs)
            await finish_build(tx, *locked, await accept(tx, job))
            return await read_job(tx, held.job_id), True

        view, is_new = await self._database.run(name, work)
        if is_new:
            self._note(view)
        return view

    def _note(self, view: JobView) -> None:
        _log.info(
            "build ended",
            job=str(view.job_id),
            build=str(view.build_id),
            workspace=str(view.workspace_id),
            transition=view.transition,
            reason=view.reason,
            status=view.status,
            failure_class=view.failure_class,
            attempt=view.attempt,
        )
        kind = _creation(view)
        if kind is not None and view.finished_at is not None:
            labels = {
                "organization": view.organization_name,
                "template": view.template_name,
                "preset": view.preset_name or "",
                "type": kind,
            }
            self._took.record((view.finished_at - view.created_at).total_seconds(), labels)


async def _lock(tx: Transaction, key: Daemon, job_id: JobId) -> tuple[LockedWorkspace, LockedJob]:
    locked = await lock_job(tx, job_id)
    if locked is None or key.organization_id not in {None, locked[1].organization_id}:
        raise Refusal.not_found("job", str(job_id))
    return locked


def _host(key: Daemon, reported: str) -> str | None:
    """The host that later jobs must run on: the tag of the key, because only by it are they matched."""
    if not reported:
        return None
    if reported != key.tags.get(HOST_TAG):
        raise Refusal.invalid(Violation("host_id", "must be the tag `host` of the key"))
    return reported


def _creation(view: JobView) -> str | None:
    """Which kind of creation this build was; None where it created nothing."""
    if view.transition is not Transition.START or view.status is not JobStatus.SUCCEEDED:
        return None
    if view.reason is BuildReason.CLAIM:
        return "claim"
    if view.number > 1:
        return None
    return "prebuild" if view.reason is BuildReason.PREBUILD else "cold"
