from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

import grpc
import pytest
from opentelemetry.trace import NoOpTracer

from prebuilds.domain.builds import BackendKind, BuildReason, FailureClass, Transition
from prebuilds.provisioner_daemon import job_run
from prebuilds.provisioner_daemon.connection import Provisioner
from prebuilds.provisioner_daemon.job_log import MOST_PENDING, JobLog
from prebuilds.provisioner_daemon.job_run import JobRun
from prebuilds.provisioner_daemon.jobs import (
    BadEnd,
    BuildFailedError,
    BuildJob,
    JobAgent,
    JobLease,
    LeaseAnswer,
    LogLine,
    Result,
)
from prebuilds.sdk.errors import PrebuildsError

AWAY = PrebuildsError(grpc.StatusCode.UNAVAILABLE, "away")
LOST = PrebuildsError(grpc.StatusCode.ABORTED, "lost", reason_name="LEASE_LOST")
REFUSED = PrebuildsError(grpc.StatusCode.INVALID_ARGUMENT, "no such host", reason_name="INVALID_FIELDS")
LEASE = timedelta(milliseconds=30)

JOB = BuildJob(
    lease=JobLease(uuid4(), uuid4(), 1, LEASE),
    organization_name="default",
    build_id=uuid4(),
    build_number=1,
    transition=Transition.START,
    reason=BuildReason.PREBUILD,
    backend=BackendKind.PROCESS,
    workspace_id=uuid4(),
    workspace_name="prebuild-x",
    owner_id=UUID(int=1),
    owner_name="prebuilds",
    template_name="python-dev",
    version_id=uuid4(),
    version_name="v1",
    parameters={},
    is_prebuild=True,
    is_prebuild_claim=False,
    generation=0,
    agents=[JobAgent(uuid4(), "main", "pba_k1_secret")],
    gateway_address="127.0.0.1:1",
    traceparent="",
    source_archive=b"",
    provisioner_state=b"",
)


@dataclass
class ScriptedService(Provisioner):
    """Answers what it is told to, and then well."""

    updates: list[LeaseAnswer | PrebuildsError] = field(default_factory=list[LeaseAnswer | PrebuildsError])
    reports: list[PrebuildsError] = field(default_factory=list[PrebuildsError])
    ends: list[Result | BadEnd] = field(default_factory=list[Result | BadEnd])
    lines: dict[int, str] = field(default_factory=dict[int, str])
    asked: int = 0
    updated: asyncio.Event = field(default_factory=asyncio.Event)

    async def update(self, lease: JobLease, lines: Sequence[LogLine]) -> LeaseAnswer:
        self.asked += 1
        self.updated.set()
        answer = self.updates.pop(0) if self.updates else LeaseAnswer(LEASE, cancel_requested=False)
        if isinstance(answer, PrebuildsError):
            raise answer
        self._keep(lines)
        return answer

    async def report(self, lease: JobLease, end: Result | BadEnd, lines: Sequence[LogLine]) -> None:
        self.ends.append(end)
        if self.reports:
            raise self.reports.pop(0)
        self._keep(lines)

    def _keep(self, lines: Sequence[LogLine]) -> None:
        self.lines.update((line.sequence, line.text) for line in lines)


@dataclass
class ScriptedBackend:
    work: Callable[[JobLog], object] = lambda _: None
    until: Callable[[], bool] = lambda: True
    host_id: str = "host-1"
    was_cancelled: bool = False

    async def build(self, job: BuildJob, log: JobLog) -> Result:
        self.work(log)
        try:
            while not self.until():
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return Result(agent_names=["main"], host_id=self.host_id)

    async def resume(self) -> int:
        return 0

    async def suspend(self) -> int:
        return 0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_run, "_LONGEST_PAUSE", 0.001)
    monkeypatch.setattr(job_run, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(job_run, "FLUSH_AFTER", timedelta(milliseconds=1))


async def run(service: ScriptedService, backend: ScriptedBackend) -> None:
    async with asyncio.timeout(10):
        await JobRun(service, backend, JOB, NoOpTracer()).run()


async def test_a_result_is_repeated_until_it_is_answered() -> None:
    service = ScriptedService(reports=[AWAY, AWAY])

    await run(service, ScriptedBackend())

    assert service.ends == [Result(agent_names=["main"], host_id="host-1")] * 3


async def test_the_lease_is_renewed_while_the_build_runs() -> None:
    service = ScriptedService()

    await run(service, ScriptedBackend(until=lambda: service.asked >= 5))

    assert len(service.ends) == 1


async def test_a_service_that_is_away_does_not_stop_the_build() -> None:
    service = ScriptedService(updates=[AWAY] * 5)

    await run(service, ScriptedBackend(until=lambda: service.asked >= 6))

    assert isinstance(service.ends[0], Result)


async def test_a_lost_lease_drops_the_work() -> None:
    service, backend = ScriptedService(updates=[LOST]), ScriptedBackend(until=lambda: False)

    await run(service, backend)

    assert backend.was_cancelled
    assert service.ends == []


async def test_a_result_under_a_lost_lease_is_not_repeated() -> None:
    service = ScriptedService(reports=[LOST])

    await run(service, ScriptedBackend())

    assert len(service.ends) == 1


async def test_a_result_that_is_refused_becomes_a_failure() -> None:
    service = ScriptedService(reports=[REFUSED])

    await run(service, ScriptedBackend())

    end = service.ends[-1]
    assert end == BadEnd("the result was refused: no such host", FailureClass.INFRASTRUCTURE, "host-1")


async def test_a_cancelled_job_is_given_up_and_reported() -> None:
    service = ScriptedService(updates=[LeaseAnswer(LEASE, cancel_requested=True)])
    backend = ScriptedBackend(until=lambda: False)

    await run(service, backend)

    assert backend.was_cancelled
    assert service.ends == [BadEnd("canceled", None, "host-1")]


async def test_a_failed_build_is_reported_with_its_class() -> None:
    def fail(_: JobLog) -> None:
        raise BuildFailedError("exit 1", FailureClass.TEMPLATE)

    service = ScriptedService()

    await run(service, ScriptedBackend(fail))

    assert service.ends == [BadEnd("exit 1", FailureClass.TEMPLATE, "host-1")]


async def test_a_backend_that_breaks_fails_the_build_without_its_text() -> None:
    def break_down(_: JobLog) -> None:
        raise RuntimeError("pba_k1_secret")

    service = ScriptedService()

    await run(service, ScriptedBackend(break_down))

    assert service.ends == [BadEnd("the daemon broke: RuntimeError", FailureClass.INFRASTRUCTURE, "host-1")]


async def test_log_lines_arrive_all_and_in_order() -> None:
    def talk(log: JobLog) -> None:
        for number in range(1500):
            log.write(f"line {number}")

    service = ScriptedService(updates=[AWAY])

    await run(service, ScriptedBackend(talk))

    assert [service.lines[sequence] for sequence in sorted(service.lines)] == [f"line {n}" for n in range(1500)]


async def test_a_cancelled_run_reports_nothing() -> None:
    service, backend = ScriptedService(), ScriptedBackend(until=lambda: False)
    running = asyncio.ensure_future(run(service, backend))
    await service.updated.wait()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert backend.was_cancelled
    assert service.ends == []


async def test_a_log_is_bounded_and_says_what_was_lost() -> None:
    log = JobLog()
    for number in range(MOST_PENDING + 7):
        log.write(str(number))
    log.confirm(log.pending(10))
    log.write("after")

    assert [line.text for line in log.pending(MOST_PENDING)[-2:]] == ["7 lines were lost", "after"]
