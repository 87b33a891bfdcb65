"""One job from its acquisition to its end.

The service is authoritative: the job is ours while it says so. States::

    building --(result | failure)--> reporting --(answered)--> over
    building --(asked to cancel)--> the build is cancelled --> reporting that
    building | reporting --(LEASE_LOST)--> over: the work is dropped, nothing more is said of it

The lease is kept by renewing it each third of its duration, until the end is answered. While the service is away the
build goes on and everything is repeated: only the service knows whether the lease was lost meanwhile. A daemon that
dies says nothing; its lease expires and the next attempt takes up what it left.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Final

import structlog
from opentelemetry.trace import Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from prebuilds.domain.builds import FailureClass
from prebuilds.domain.refusals import Reason
from prebuilds.provisioner_daemon.backends.port import Backend
from prebuilds.provisioner_daemon.connection import Provisioner
from prebuilds.provisioner_daemon.job_log import JobLog
from prebuilds.provisioner_daemon.jobs import BadEnd, BuildFailedError, BuildJob, Result
from prebuilds.sdk.errors import PrebuildsError
from prebuilds.sdk.retries import is_passing

LINES_AT_ONCE: Final = 1000
FLUSH_AFTER: Final = timedelta(milliseconds=300)
"""How long lines are collected before they go out."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_LOST: Final = frozenset({Reason.LEASE_LOST, Reason.NOT_FOUND})

_log = structlog.get_logger(__name__)
_propagator = TraceContextTextMapPropagator()


class JobRun:
    """Runs one job."""

    def __init__(self, provisioner: Provisioner, backend: Backend, job: BuildJob, tracer: Tracer) -> None:
        """Nothing runs yet."""
        self._provisioner = provisioner
        self._backend = backend
        self._job = job
        self._tracer = tracer
        self._lines = JobLog()
        self._is_lost = False
        self._log = _log.bind(
            job=str(job.lease.job_id),
            workspace=str(job.workspace_id),
            transition=job.transition,
            attempt=job.lease.attempt,
        )

    async def run(self) -> None:
        """Run it to its end; cancelled, it is left to its lease."""
        parent = _propagator.extract({"traceparent": self._job.traceparent}) if self._job.traceparent else None
        attributes = {"prebuilds.transition": self._job.transition.value, "prebuilds.reason": self._job.reason.value}
        with self._tracer.start_as_current_span("build workspace", context=parent, attributes=attributes):
            async with asyncio.TaskGroup() as group:
                build = group.create_task(self._build())
                keeper = group.create_task(self._keep_lease(build))
                try:
                    # Not awaited itself: its cancellation by the keeper is not ours.
                    await asyncio.wait({build})
                    if not self._is_lost:
                        await self._report(self._bad_end("canceled", None) if build.cancelled() else build.result())
                finally:
                    keeper.cancel()

    async def _build(self) -> Result | BadEnd:
        try:
            return await self._backend.build(self._job, self._lines)
        except BuildFailedError as failure:
            return self._bad_end(str(failure), failure.failure_class)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises, the job must end
            self._log.exception("backend broke")
            return self._bad_end(f"the daemon broke: {type(error).__name__}", FailureClass.INFRASTRUCTURE)

    def _bad_end(self, error: str, failure_class: FailureClass | None) -> BadEnd:
        return BadEnd(error, failure_class, self._backend.host_id)

    async def _keep_lease(self, build: asyncio.Task[Result | BadEnd]) -> None:
        lasts_for = self._job.lease.lasts_for
        failures = 0
        while True:
            await self._until_due(lasts_for / 3, failures)
            lines = self._lines.pending(LINES_AT_ONCE)
            try:
                answer = await self._provisioner.update(self._job.lease, lines)
            except PrebuildsError as error:
                if error.reason in _LOST:
                    self._log.warning("lease was lost", reason=error.reason_name)
                    self._is_lost = True
                    build.cancel()
                    return
                failures += 1
                self._log.warning("lease could not be renewed", code=error.code.name, failures=failures)
                continue
            failures = 0
            self._lines.confirm(lines)
            lasts_for = answer.lasts_for
            if answer.cancel_requested and not build.done():
                self._log.info("job was cancelled")
                build.cancel()

    async def _until_due(self, interval: timedelta, failures: int) -> None:
        if failures:
            await asyncio.sleep(_pause(failures))
            return
        try:
            async with asyncio.timeout(interval.total_seconds()):
                await self._lines.written()
                await asyncio.sleep(FLUSH_AFTER.total_seconds())
        except TimeoutError:
            pass

    async def _report(self, end: Result | BadEnd) -> None:
        failures = 0
        while not self._is_lost:
            try:
                await self._send_most_lines()
                await self._provisioner.report(self._job.lease, end, self._lines.pending(LINES_AT_ONCE))
            except PrebuildsError as error:
                if not is_passing(error):
                    end = self._refused(end, error)
                failures += 1
                await asyncio.sleep(_pause(failures))
                continue
            self._log.info("job ended", end=type(end).__name__, error=getattr(end, "error", ""))
            return

    async def _send_most_lines(self) -> None:
        """Send what the report of the end has no room for."""
        while len(lines := self._lines.pending(LINES_AT_ONCE + 1)) > LINES_AT_ONCE:
            await self._provisioner.update(self._job.lease, lines[:LINES_AT_ONCE])
            self._lines.confirm(lines[:LINES_AT_ONCE])

    def _refused(self, end: Result | BadEnd, error: PrebuildsError) -> Result | BadEnd:
        """The service will not have this end: it is not ours any more, or it is told as a failure of the daemon."""
        self._log.warning("end of job was refused", code=error.code.name, reason=error.reason_name)
        if error.reason in _LOST or isinstance(end, BadEnd):
            self._is_lost = True
        return self._bad_end(f"the result was refused: {error.message}", FailureClass.INFRASTRUCTURE)


def _pause(failures: int) -> float:
    return random.uniform(_FIRST_PAUSE / 2, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**failures))  # noqa: S311 - jitter
