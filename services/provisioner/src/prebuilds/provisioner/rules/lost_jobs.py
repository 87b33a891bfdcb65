"""What becomes of a job that its daemon has lost, that is cancelled too slowly, or that nobody takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from prebuilds.domain.builds import BackendKind, JobStatus


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each kind of loss is waited out, and how often a job is tried."""

    cancel_grace: timedelta
    longest_wait: timedelta
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Holding:
    """What the decision needs to know of a job."""

    status: JobStatus
    attempt: int
    created_at: datetime
    lease_expires_at: datetime | None
    cancel_requested_at: datetime | None
    backend: BackendKind
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PutBack:
    """Let another daemon try."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail the build, by the infrastructure's fault."""

    error: str


@dataclass(frozen=True, slots=True)
class EndCanceled:
    """End the build as cancelled, whatever its daemon does."""

    reason: str


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """Nothing is lost."""


Verdict = PutBack | GiveUp | EndCanceled | LeaveAlone


def what_becomes_of(job: Holding, patience: Patience, now: datetime) -> Verdict:
    """Decide about one job (behaviour section 7); the first that applies.

    1. Finished: leave alone.
    2. Waiting, for longer than `longest_wait` since it was queued or put back: give up.
    3. Cancelled, and its lease is lost or the grace is over: end it as cancelled.
    4. Lease lost: put back, or give up after `max_attempts`.
    """
    match job.status:
        case JobStatus.SUCCEEDED | JobStatus.FAILED | JobStatus.CANCELED:
            return LeaveAlone()
        case JobStatus.PENDING:
            since = job.created_at if job.lease_expires_at is None else max(job.created_at, job.lease_expires_at)
            return (
                GiveUp(_nobody_came(job, patience.longest_wait))
                if since + patience.longest_wait < now
                else LeaveAlone()
            )
        case JobStatus.RUNNING | JobStatus.CANCELING:
            is_lost = job.lease_expires_at is not None and job.lease_expires_at < now
    if job.cancel_requested_at is not None:
        if is_lost:
            return EndCanceled("canceled; its daemon was lost before it gave up")
        if job.cancel_requested_at + patience.cancel_grace < now:
            return EndCanceled("canceled by force: its daemon did not give up in time")
        return LeaveAlone()
    if not is_lost:
        return LeaveAlone()
    if job.attempt < patience.max_attempts:
        return PutBack()
    return GiveUp(f"the daemon was lost in each of {job.attempt} attempts")


def _nobody_came(job: Holding, longest_wait: timedelta) -> str:
    tags = ", ".join(f"{name}={value}" for name, value in sorted(job.tags.items())) or "none"
    return (
        f"no daemon took the job within {longest_wait.total_seconds() / 60:g} min"
        f" (backend {job.backend}; tags that its key must carry: {tags})"
    )
