"""The provisioner service as a daemon calls it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from prebuilds.provisioner_daemon import messages
from prebuilds.provisioner_daemon.jobs import BadEnd, BuildJob, JobLease, LeaseAnswer, LogLine, Result
from prebuilds.sdk.errors import typed_errors
from prebuilds.v1 import job_pb2
from prebuilds.v1.provisioner_service_pb2_grpc import ProvisionerServiceStub

MAX_WAIT: Final = timedelta(seconds=30)
"""How long the service is asked to wait for a job."""

_CALL_TIMEOUT: Final = timedelta(seconds=20)
_ANSWER_WITHIN: Final = timedelta(seconds=10)


class Provisioner:
    """The calls of one daemon. Each raises PrebuildsError and is repeated by who calls it."""

    def __init__(self, stub: ProvisionerServiceStub, daemon: job_pb2.Daemon) -> None:
        """`daemon` is what the daemon says of itself."""
        self._stub = stub
        self._daemon = daemon

    async def acquire(self) -> BuildJob | None:
        """Wait for a job; None when there was none for 30 s."""
        with typed_errors():
            answer = await self._stub.AcquireJob(
                messages.acquire_request(self._daemon, MAX_WAIT),
                timeout=(MAX_WAIT + _ANSWER_WITHIN).total_seconds(),
            )
        return messages.read_job(answer.job) if answer.HasField("job") else None

    async def update(self, lease: JobLease, lines: Sequence[LogLine]) -> LeaseAnswer:
        """Renew the lease and hand over log lines, at most 1,000."""
        with typed_errors():
            answer = await self._stub.UpdateJob(
                messages.update_request(lease, lines), timeout=_CALL_TIMEOUT.total_seconds()
            )
        return messages.read_answer(answer)

    async def report(self, lease: JobLease, end: Result | BadEnd, lines: Sequence[LogLine]) -> None:
        """Report the end of a job."""
        timeout = _CALL_TIMEOUT.total_seconds()
        with typed_errors():
            match end:
                case Result():
                    await self._stub.CompleteJob(messages.complete_request(lease, end, lines), timeout=timeout)
                case BadEnd():
                    await self._stub.FailJob(messages.fail_request(lease, end, lines), timeout=timeout)
