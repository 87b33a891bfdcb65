from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import uuid4

import grpc
from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import NoOpTracer

from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.domain.builds import BackendKind
from prebuilds.provisioner_daemon.job_log import JobLog
from prebuilds.provisioner_daemon.jobs import BuildJob, JobLease, Result
from prebuilds.provisioner_daemon.worker import Worker
from prebuilds.sdk.errors import PrebuildsError
from tests.support.waiting import eventually
from tests.unit.provisioner_daemon.test_job_run import JOB, ScriptedService


@dataclass
class Queue(ScriptedService):
    """Hands out so many jobs, then none."""

    jobs: int = 0
    faults: list[Exception] = field(default_factory=list[Exception])

    async def acquire(self) -> BuildJob | None:
        if self.faults:
            raise self.faults.pop(0)
        if not self.jobs:
            await asyncio.Event().wait()
        self.jobs -= 1
        return replace(JOB, lease=JobLease(uuid4(), uuid4(), 1, timedelta(seconds=30)))


@dataclass
class HeldBackend:
    """Builds until it is let go."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    most: int = 0
    cancelled: int = 0
    host_id: str = ""

    async def build(self, job: BuildJob, log: JobLog) -> Result:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return Result()

    async def resume(self) -> int:
        return 0

    async def suspend(self) -> int:
        return 0


@asynccontextmanager
async def working(queue: Queue, backend: HeldBackend, slots: int) -> AsyncGenerator[tuple[Worker, asyncio.Task[None]]]:
    async with BackgroundTasks() as tasks:
        worker = Worker(
            queue,
            {BackendKind.PROCESS: backend},
            slots=slots,
            tasks=tasks,
            tracer=NoOpTracer(),
            meter=NoOpMeter("test"),
        )
        yield worker, tasks.spawn("worker", worker.run())


async def test_no_more_jobs_are_taken_than_there_are_slots() -> None:
    queue, backend = Queue(jobs=5), HeldBackend()

    async with working(queue, backend, slots=2):
        await eventually(lambda: backend.running == 2)
        assert queue.jobs == 3
        backend.go.set()
        await eventually(lambda: len(queue.ends) == 5)

    assert backend.most == 2


async def test_a_service_that_is_away_is_asked_again() -> None:
    queue, backend = Queue(jobs=1), HeldBackend()
    queue.faults = [PrebuildsError(grpc.StatusCode.UNAVAILABLE, "away") for _ in range(3)]
    backend.go.set()

    async with working(queue, backend, slots=1):
        await eventually(lambda: len(queue.ends) == 1)


async def test_a_drain_takes_no_more_and_lets_running_jobs_end() -> None:
    queue, backend = Queue(jobs=3), HeldBackend()

    async with working(queue, backend, slots=1) as (worker, taking):
        await eventually(lambda: backend.running == 1)
        taking.cancel()
        draining = asyncio.ensure_future(worker.drain(timedelta(seconds=30)))
        backend.go.set()
        await draining

    assert len(queue.ends) == 1
    assert queue.jobs == 2


async def test_what_outlasts_the_drain_is_left_to_its_lease() -> None:
    queue, backend = Queue(jobs=1), HeldBackend()

    async with working(queue, backend, slots=1) as (worker, taking):
        await eventually(lambda: backend.running == 1)
        taking.cancel()
        await worker.drain(timedelta(0))

    assert backend.cancelled == 1
    assert queue.ends == []
