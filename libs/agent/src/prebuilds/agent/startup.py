"""The work of the agent program: the manifest's startup scripts, one after the other, and what they leave running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from prebuilds.agent.environment import OWNERSHIP, script_environment
from prebuilds.agent.processes import OwnedProcesses, kill_group
from prebuilds.sdk.agent import Started, StartFailed, StartTimedOut, StartupResult
from prebuilds.v1.agent_pb2 import Manifest, StartupScript

LOG_NAME: Final = "startup.log"
DEFAULT_TIMEOUT: Final = timedelta(minutes=10)

_TAIL: Final = 2048
_WAIT_LIMIT: Final = 5.0

_log = structlog.get_logger(__name__)


class StartupWork:
    """Runs startup scripts for one owner at a time; a `Work` of the SDK."""

    def __init__(
        self, *, folder: Path, workspace_folder: Path, environment: Mapping[str, str], stop_grace: float
    ) -> None:
        """`folder` takes the log, in `workspace_folder` scripts lie, `environment` is the agent's own."""
        self._log_file = folder / LOG_NAME
        self._workspace_folder = workspace_folder
        self._environment = environment
        self._stop_grace = stop_grace
        self._ownership = str(folder.resolve())
        self._processes = OwnedProcesses(f"{OWNERSHIP}={self._ownership}")
        self._script: asyncio.subprocess.Process | None = None

    async def start(self, manifest: Manifest) -> StartupResult:
        """Run the scripts; the log holds the output of this startup and of what it leaves running, of no other."""
        self._log_file.unlink(missing_ok=True)
        environment = script_environment(self._environment, manifest, self._ownership)
        directory = self._workspace_folder / manifest.directory
        # Appended to, so that what one script leaves running does not write over the output of the next.
        with self._log_file.open("ab") as output:
            for script in manifest.startup_scripts:
                _log.info("script started", script=script.name, generation=manifest.generation)
                started = time.monotonic()
                result = await self._run(script, directory, environment, output)
                seconds = round(time.monotonic() - started, 3)
                _log.info("script ended", script=script.name, result=type(result).__name__, seconds=seconds)
                if not isinstance(result, Started):
                    return result
        return Started()

    async def stop(self) -> None:
        """End all that scripts started: asked first, killed after the grace."""
        ended = await self._processes.end(self._stop_grace)
        if self._script is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._script.wait(), _WAIT_LIMIT)
            self._script = None
        if ended:
            _log.info("work ended", processes=ended)

    async def _run(
        self, script: StartupScript, directory: Path, environment: Mapping[str, str], output: BinaryIO
    ) -> StartupResult:
        output.write(f"--- {script.name}\n".encode())
        output.flush()
        beginning = output.tell()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(script),
                cwd=directory,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            return StartFailed(f"script {script.name!r} cannot be run: {error}")
        self._script = process
        self._processes.own_group(process.pid)
        timeout = script.timeout.ToTimedelta() if script.HasField("timeout") else DEFAULT_TIMEOUT
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                status = await process.wait()
        except TimeoutError:
            kill_group(process.pid)
            await process.wait()
            self._script = None
            said = self._said_since(beginning)
            return StartTimedOut(f"script {script.name!r} was killed after {timeout.total_seconds():g} s\n{said}")
        self._script = None
        if status != 0:
            return StartFailed(f"script {script.name!r} {_ending(status)}\n{self._said_since(beginning)}")
        return Started()

    def _command(self, script: StartupScript) -> list[str]:
        if script.WhichOneof("source") == "path":
            return [str((self._workspace_folder / script.path).absolute())]
        return ["/bin/sh", "-c", script.command]

    def _said_since(self, beginning: int) -> str:
        with self._log_file.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(beginning, end - _TAIL))
            return log.read().decode(errors="replace").strip()


def _ending(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    return f"was ended by {signal.Signals(-status).name}"
