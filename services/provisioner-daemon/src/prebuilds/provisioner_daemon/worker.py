"""The worker: takes jobs while it has free slots, runs them, and ends in good order.

Asked to stop it takes no more jobs and lets those that run go on for a grace; what is left then is cancelled and left
to the expiry of its lease, after which another daemon takes up what is there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import structlog
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import Tracer

from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.domain.builds import BackendKind
from prebuilds.provisioner_daemon.backends.port import Backend
from prebuilds.provisioner_daemon.connection import Provisioner
from prebuilds.provisioner_daemon.job_run import JobRun
from prebuilds.provisioner_daemon.jobs import BuildJob
from prebuilds.sdk.errors import PrebuildsError

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

_log = structlog.get_logger(__name__)


class Worker:
    """Runs jobs, some at once."""

    def __init__(
        self,
        provisioner: Provisioner,
        backends: Mapping[BackendKind, Backend],
        *,
        slots: int,
        tasks: BackgroundTasks,
        tracer: Tracer,
        meter: Meter,
    ) -> None:
        """`slots` jobs at once, each in a task of `tasks`."""
        self._provisioner = provisioner
        self._backends = backends
        self._free = asyncio.Semaphore(slots)
        self._tasks = tasks
        self._tracer = tracer
        self._running: set[asyncio.Task[None]] = set()
        self._ended = meter.create_counter("prebuilds_daemon_jobs_total", description="Jobs that this daemon ran.")
        meter.create_observable_gauge(
            "prebuilds_daemon_jobs_running", [self._count_running], description="Jobs that this daemon runs."
        )

    async def run(self) -> None:
        """Take jobs for ever; cancel it to take no more."""
        failures = 0
        while True:
            await self._free.acquire()
            job = None
            try:
                job = await self._provisioner.acquire()
                failures = 0
            except PrebuildsError as error:
                failures += 1
                _log.warning("no job could be asked for", code=error.code.name, message=error.message)
                await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**failures)))  # noqa: S311
            except Exception:  # noqa: BLE001 - a loop's body: what cannot be read now may be later
                failures += 1
                _log.exception("job was not understood")
                await asyncio.sleep(_LONGEST_PAUSE)
            finally:
                if job is None:
                    self._free.release()
            if job is not None:
                self._begin(job)

    async def drain(self, grace: timedelta) -> None:
        """Let running jobs end, for at most `grace`; the rest is cancelled and left to its lease."""
        if self._running:
            _log.info("waiting for jobs", running=len(self._running))
            _, late = await asyncio.wait(self._running, timeout=grace.total_seconds())
            for task in late:
                task.cancel()
            if late:
                _log.warning("jobs were left to their leases", jobs=len(late))
                await asyncio.wait(late)

    def _begin(self, job: BuildJob) -> None:
        task = self._tasks.spawn(f"job {job.lease.job_id}", self._work(job))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # Here and not in the task, which a cancellation can end before it has begun.
        task.add_done_callback(lambda _: self._free.release())

    def _count_running(self, _: CallbackOptions) -> list[Observation]:
        return [Observation(len(self._running))]

    async def _work(self, job: BuildJob) -> None:
        try:
            await JobRun(self._provisioner, self._backends[job.backend], job, self._tracer).run()
        except Exception:  # noqa: BLE001 - a loop's body: one job must not end the daemon; its lease expires
            _log.exception("job broke", job=str(job.lease.job_id))
        self._ended.add(1, {"transition": job.transition.value, "backend": job.backend.value})
