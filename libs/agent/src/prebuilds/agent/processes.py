"""What startup scripts left running: found again and ended, also what made a session of its own.

On Linux every process is looked at: it is the work's if it is in a process group of a script or bears the agent folder
in its environment, which children inherit; so nothing escapes by `setsid`, and an agent that was killed finds at its
next start what the one before left. Elsewhere the process groups have to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

_PROC: Final = Path("/proc")
_FIRST_LOOK: Final = 0.01
_LATER_LOOKS: Final = 0.1
_KILL_LIMIT: Final = 5.0
_NOT_RUNNING: Final = frozenset("ZX")

_log = structlog.get_logger(__name__)


class OwnedProcesses:
    """The processes of one agent's work."""

    def __init__(self, ownership: str) -> None:
        """`ownership` is a `NAME=value` that the environment of each of them has."""
        self._ownership = ownership.encode()
        self._groups: set[int] = set()

    def own_group(self, group: int) -> None:
        """A script was started in a process group of this number."""
        self._groups.add(group)

    def running(self) -> list[int]:
        """Those that run now. Groups without a process are forgotten: their number may become another's."""
        if sys.platform != "linux":
            self._groups = {group for group in self._groups if _group_exists(group)}
            return [-group for group in self._groups]
        found: list[int] = []
        groups: set[int] = set()
        for entry in os.listdir(_PROC):  # noqa: PTH208 - a Path for each process is what this is too often for
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            group = _group_of(int(entry))
            if group is not None and (group in self._groups or self._is_owned(int(entry))):
                found.append(int(entry))
                groups.add(group)
        self._groups &= groups
        return found

    async def end(self, grace: float) -> int:
        """Ask all to end, and kill what still runs after `grace` seconds; answers how many there were.

        What cannot be killed, as it belongs to another user, is logged after 5 s more and left.
        """
        started = time.monotonic()
        number = signal.SIGTERM
        asked: set[int] = set()
        look = _FIRST_LOOK
        while left := await asyncio.to_thread(self.running):
            passed = time.monotonic() - started
            if passed > grace + _KILL_LIMIT:
                _log.error("work could not be ended", processes=left)
                break
            if passed >= grace and number is signal.SIGTERM:
                number = signal.SIGKILL
                asked.clear()
            self._send(number, [process for process in left if process not in asked])
            asked.update(left)
            await asyncio.sleep(look)
            look = min(look * 2, _LATER_LOOKS)
        return len(asked)

    def _send(self, number: signal.Signals, processes: Iterable[int]) -> None:
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if process < 0 or sys.platform != "linux":
                    os.kill(process, number)
                else:
                    self._send_surely(number, process)

    def _send_surely(self, number: signal.Signals, process: int) -> None:
        """Send to the process that was meant: held by a descriptor, its number cannot become another's meanwhile."""
        descriptor = os.pidfd_open(process)
        try:
            if _group_of(process) in self._groups or self._is_owned(process):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

    def _is_owned(self, process: int) -> bool:
        try:
            environment = (_PROC / str(process) / "environ").read_bytes()
        except OSError:
            return False
        return self._ownership in environment.split(b"\0")


def kill_group(group: int) -> None:
    """Kill a script and its children at once; the script itself must not have been waited for yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _group_of(process: int) -> int | None:
    """The process group of a process that runs; None for one that is gone or ended."""
    try:
        content = (_PROC / str(process) / "stat").read_bytes()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; after it: state, parent, group.
    state, _, group, *_ = content[content.rindex(b")") + 2 :].decode().split()
    return None if state in _NOT_RUNNING else int(group)


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True
