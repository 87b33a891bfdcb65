"""Cancelling what a daemon has: it is asked, and a sweep ends the job by force after a grace (behaviour section 7)."""

from __future__ import annotations

from typing import Final

from prebuilds.store.jobs.finishing import LockedJob
from prebuilds.store.outbox.writer import append_many
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.jobs")


async def request_cancel(tx: Transaction, job: LockedJob) -> None:
    """Ask the daemon of a job that `lock_job` has locked and that runs; one that is being cancelled already is no news.

    A job that waits is ended by `finish_build` instead.
    """
    cursor = await tx.run(_queries["request_cancel"], {"job_id": job.job_id})
    if cursor.rowcount:
        await append_many(tx, [job.changed()])
