"""Sweeps over jobs that nobody will report the end of (behaviour section 7).

Any number of replicas sweep. A sweep finds candidates without locks, then takes each in a transaction of its own: it
locks, looks again, decides by the pure rule, and acts. Two sweeps at one job: the second finds it changed and leaves it
alone. A crash between two jobs leaves the rest to the next sweep; one job that cannot be ended is logged and counted,
and does not keep the others from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

import structlog

from prebuilds.domain.builds import BuildOutcome, FailureClass
from prebuilds.domain.ids import JobId
from prebuilds.provisioner.rules.lost_jobs import (
    EndCanceled,
    GiveUp,
    Holding,
    LeaveAlone,
    Patience,
    PutBack,
    Verdict,
    what_becomes_of,
)
from prebuilds.store.database import Database
from prebuilds.store.jobs.finishing import BuildResult, LockedJob, finish_build, lock_job
from prebuilds.store.jobs.leasing import lost_jobs, put_back
from prebuilds.store.transactions import Transaction

MOST_AT_ONCE: Final = 100
"""Jobs of each kind in one sweep."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did; false where there was nothing."""

    put_back: int = 0
    failed: int = 0
    canceled: int = 0
    broken: int = 0
    """Jobs that could not be dealt with; the next sweep finds them again."""

    def __bool__(self) -> bool:
        """Whether anything was done."""
        return self != Swept()


async def sweep(database: Database, patience: Patience) -> Swept:
    """Go once over the jobs that look lost."""
    async with database.read("find lost jobs") as tx:
        candidates = await lost_jobs(
            tx, cancel_grace=patience.cancel_grace, longest_wait=patience.longest_wait, limit=MOST_AT_ONCE
        )
    verdicts = [await _sweep_one(database, job_id, patience) for job_id in candidates]
    return Swept(
        put_back=sum(isinstance(verdict, PutBack) for verdict in verdicts),
        failed=sum(isinstance(verdict, GiveUp) for verdict in verdicts),
        canceled=sum(isinstance(verdict, EndCanceled) for verdict in verdicts),
        broken=verdicts.count(None),
    )


async def _sweep_one(database: Database, job_id: JobId, patience: Patience) -> Verdict | None:
    """Deal with one job; None where that failed."""
    try:
        return await database.run("sweep job", _Sweep(job_id, patience))
    except Exception:  # noqa: BLE001 - a loop's body: one job's failure never stops the others
        _log.exception("job was not swept", job=str(job_id))
        return None


@dataclass(frozen=True, slots=True)
class _Sweep:
    job_id: JobId
    patience: Patience

    async def __call__(self, tx: Transaction) -> Verdict:
        locked = await lock_job(tx, self.job_id)
        if locked is None:
            return LeaveAlone()
        workspace, job = locked
        verdict = what_becomes_of(_holding(job), self.patience, job.looked_at)
        match verdict:
            case LeaveAlone():
                return verdict
            case PutBack():
                await put_back(tx, job)
            case GiveUp(error):
                result = BuildResult(BuildOutcome.FAILED, failure_class=FailureClass.INFRASTRUCTURE, error=error)
                await finish_build(tx, workspace, job, result)
            case EndCanceled(reason):
                await finish_build(tx, workspace, job, BuildResult(BuildOutcome.CANCELED, error=reason))
            case _:
                assert_never(verdict)
        _log.warning(
            "job was swept",
            job=str(job.job_id),
            workspace=str(job.workspace_id),
            status=job.status,
            attempt=job.attempt,
            verdict=type(verdict).__name__,
        )
        return verdict


def _holding(job: LockedJob) -> Holding:
    return Holding(
        job.status,
        job.attempt,
        job.created_at,
        job.lease_expires_at,
        job.cancel_requested_at,
        job.backend,
        job.tags,
    )
