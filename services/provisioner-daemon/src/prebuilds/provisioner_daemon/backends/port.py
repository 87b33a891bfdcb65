"""The port that every backend has."""

from __future__ import annotations

from typing import Protocol

from prebuilds.provisioner_daemon.job_log import JobLog
from prebuilds.provisioner_daemon.jobs import BuildJob, Result


class Backend(Protocol):
    """Brings a workspace to what a job asks for."""

    @property
    def host_id(self) -> str:
        """The host that whatever it leaves is tied to; empty where it is tied to none."""
        ...

    async def build(self, job: BuildJob, log: JobLog) -> Result:
        """Do the job: idempotent, and able to go on from whatever an earlier attempt left.

        A cancellation asks to give up. Raises BuildFailedError. Never writes a secret to the log.
        """
        ...

    async def resume(self) -> int:
        """Bring back what should run on this host and does not, as after its reboot; answers how much that was."""
        ...

    async def suspend(self) -> int:
        """End what runs on this host until the next `resume`; answers how much that was."""
        ...
