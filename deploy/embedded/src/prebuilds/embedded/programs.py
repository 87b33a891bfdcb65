"""The programs of the stack as child processes: started, known to be ready, restarted when they fall, stopped in order.

A program tells that it is ready by writing its addresses to a file; nothing else is asked of it. It runs in a session
of its own, so that Ctrl-C at the terminal reaches the stack alone, and dies with the stack even when that is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, cast

from prebuilds.embedded.children import die_with_parent

_POLL: Final = 0.02  # seconds
_READY_WITHIN: Final = timedelta(seconds=30)
_FIRST_PAUSE: Final = 0.2  # seconds before a fallen program is started again; doubles up to the longest
_LONGEST_PAUSE: Final = 5.0
_STEADY: Final = 30.0  # seconds of running after which a fall counts as the first again


class ProgramError(Exception):
    """A program cannot be started; the text says which, and its last words."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is started, and with what environment: all of it, nothing is inherited but what is given here."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path
    addresses_file: Path
    stop_within: timedelta = timedelta(seconds=15)
    """How long it may take to end in good order."""


class Supervisor:
    """Keeps one program running from `start` to `stop`."""

    def __init__(self, program: Program, tell: Callable[[str], None]) -> None:
        """Nothing runs yet. `tell` tells people that it fell and starts again."""
        self._program = program
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def name(self) -> str:
        """The program's name."""
        return self._program.name

    @property
    def pid(self) -> int | None:
        """Its process while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> Mapping[str, str]:
        """Start it and wait until it is ready; answers its addresses by kind (`grpc`, `metrics`)."""
        process = await self._launch()
        try:
            async with asyncio.timeout(_READY_WITHIN.total_seconds()):
                addresses = await self._ready(process)
        except TimeoutError:
            await self._end(process)
            raise ProgramError(
                f"{self.name} was not ready within {_READY_WITHIN.seconds} s: {self._last_words()}"
            ) from None
        self._watcher = asyncio.create_task(self._keep_running(), name=f"supervise {self.name}")
        return addresses

    async def stop(self) -> None:
        """Ask it to drain and wait; kill it when it takes longer than it may."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._process is not None:
            await self._end(self._process)

    async def _launch(self) -> asyncio.subprocess.Process:
        self._program.addresses_file.unlink(missing_ok=True)
        with self._program.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._program.environment),
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        return self._process

    async def _ready(self, process: asyncio.subprocess.Process) -> Mapping[str, str]:
        while not self._program.addresses_file.exists():
            if process.returncode is not None:
                raise ProgramError(f"{self.name} ended with {process.returncode}: {self._last_words()}")
            await asyncio.sleep(_POLL)
        return cast("Mapping[str, str]", json.loads(self._program.addresses_file.read_text()))

    async def _keep_running(self) -> None:
        pause = _FIRST_PAUSE
        process = self._process
        while process is not None:
            began = time.monotonic()
            code = await process.wait()
            if time.monotonic() - began >= _STEADY:
                pause = _FIRST_PAUSE
            self._tell(f"{self.name} ended with {code}, starts again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            self.restarts += 1
            try:
                process = await self._launch()
            except OSError as error:
                self._tell(f"{self.name} cannot be started: {error.strerror}")

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self._program.stop_within.total_seconds()):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _last_words(self) -> str:
        lines = self._program.log_file.read_text(errors="replace").splitlines()
        return " | ".join(lines[-3:]) or "it said nothing"
