"""Leases: which daemon works on which job, and until when (behaviour section 7).

Postgres is authoritative: a job is held by whoever has its `lease_id`, and each attempt has another. States::

    pending -- acquire --> running -- report of its end --> succeeded | failed | canceled
       ^                      |
       +----- put_back -------+   the lease expired; at most `MAX_ATTEMPTS` in all

A daemon that dies stops renewing: the lease expires, a sweep puts the job back, and whatever the daemon still reports
is under a lease that nobody has any more. A crash between the commit of an acquisition and its answer is the same
case. A lease that has expired but that no sweep has seen can still be renewed: nobody else got the job meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from prebuilds.domain.builds import BackendKind, LogLevel
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import BuildId, JobId, OrganizationId, PresetId, ProvisionerKeyId, UserId, WorkspaceId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.jobs.finishing import LockedJob
from prebuilds.store.jobs.news import build_changed
from prebuilds.store.outbox.writer import Event, append_many
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

MAX_ATTEMPTS: Final = 3
"""Attempts of a job in all."""

_queries: Final = SqlFolder("prebuilds.store.jobs")


@dataclass(frozen=True, slots=True)
class Reach:
    """What the key of a daemon reaches: None for the organisation is all of them."""

    key_id: ProvisionerKeyId
    organization_id: OrganizationId | None
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Lease:
    """A job just taken."""

    job_id: JobId
    organization_id: OrganizationId
    workspace_id: WorkspaceId
    build_id: BuildId
    preset_id: PresetId | None
    owner_id: UserId
    backend: BackendKind
    attempt: int
    lease_id: UUID
    lease_expires_at: datetime
    traceparent: str | None
    queued_for: timedelta
    """Since the job was queued, or since the lease before this one was lost."""


@dataclass(frozen=True, slots=True)
class RenewedLease:
    """A lease that goes on."""

    job_id: JobId
    attempt: int
    lease_expires_at: datetime
    cancel_requested_at: datetime | None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a job's log, as its daemon counts them."""

    sequence: int
    logged_at: datetime
    level: LogLevel
    stage: str
    line: str


async def acquire(
    tx: Transaction,
    reach: Reach,
    *,
    backends: Collection[BackendKind],
    daemon: str,
    lease_for: timedelta,
    token_key_id: str,
    known_key_ids: Collection[str],
) -> Lease | None:
    """Lease the next job within reach; None where there is none. `daemon` is a name for people.

    Locks the job, then those of the workspace's agents that have no token key, or none of `known_key_ids`: they get
    `token_key_id`, the newest.
    """
    lease = await tx.fetch_one(
        _queries["acquire"],
        {
            "backends": [backend.value for backend in backends],
            "tags": Jsonb(dict(reach.tags)),
            "organization_id": reach.organization_id,
            "lease_id": uuid4(),
            "key_id": reach.key_id,
            "daemon": daemon,
            "lease_for": lease_for,
        },
        row=Lease,
    )
    if lease is None:
        return None
    await tx.run(
        _queries["sign_agents"],
        {"workspace_id": lease.workspace_id, "key_id": token_key_id, "known_key_ids": list(known_key_ids)},
    )
    changed = build_changed(
        lease.workspace_id,
        lease.organization_id,
        build_id=lease.build_id,
        preset_id=lease.preset_id,
        owner_id=lease.owner_id,
    )
    await append_many(tx, [changed])
    return lease


async def renew(
    tx: Transaction, job_id: JobId, lease_id: UUID, *, organization_id: OrganizationId | None, lease_for: timedelta
) -> RenewedLease:
    """Renew a lease. Raises Refusal LEASE_LOST, or NOT_FOUND for what the key does not reach. Locks the job."""
    renewed = await tx.fetch_one(
        _queries["renew"],
        {"job_id": job_id, "lease_id": lease_id, "organization_id": organization_id, "lease_for": lease_for},
        row=RenewedLease,
    )
    if renewed is not None:
        return renewed
    exists = await tx.fetch_one(
        _queries["job_exists"], {"job_id": job_id, "organization_id": organization_id}, row=bool
    )
    raise lease_lost(job_id) if exists else Refusal.not_found("job", str(job_id))


async def store_logs(tx: Transaction, job_id: JobId, attempt: int, lines: Sequence[LogLine]) -> None:
    """Store lines of an attempt, each once however often it is reported; the caller holds the job's lock."""
    if lines:
        await tx.run(
            _queries["store_logs"],
            {
                "job_id": job_id,
                "attempt": attempt,
                "sequences": [line.sequence for line in lines],
                "times": [line.logged_at for line in lines],
                "levels": [line.level.value for line in lines],
                "stages": [line.stage for line in lines],
                "lines": [line.line for line in lines],
            },
        )


async def lost_jobs(
    tx: Transaction, *, cancel_grace: timedelta, longest_wait: timedelta, limit: int
) -> Sequence[JobId]:
    """Find jobs that look lost, at most `limit` of each kind; whoever acts on one locks it and looks again."""
    terms = {"cancel_grace": cancel_grace, "longest_wait": longest_wait, "limit": limit}
    return [JobId(job_id) for job_id in await tx.fetch_all(_queries["lost_jobs"], terms, row=UUID)]


async def put_back(tx: Transaction, job: LockedJob) -> None:
    """Put a job that `lock_job` has locked, and whose lease is lost, back into the queue."""
    await tx.run(_queries["put_back"], {"job_id": job.job_id})
    payload = {"workspace_id": str(job.workspace_id), "build_id": str(job.build_id)}
    await append_many(tx, [Event(EventKind.JOB_QUEUED, job.job_id, job.organization_id, payload), job.changed()])


def lease_lost(job_id: JobId) -> Refusal:
    """The answer to a report under a lease that is no longer held."""
    return Refusal(Reason.LEASE_LOST, "the lease on this job was lost: drop the work", metadata={"job": str(job_id)})
