"""The supervisor of one agent: a small process of its own that outlives the daemon and starts the agent again.

    python -I -m prebuilds.provisioner_daemon.backends.process.supervisor FOLDER GRACE LOG_SIZE -- COMMAND...

Called by the daemon it forks and ends as soon as the child supervises; the child belongs to nobody. Its life is the
lock on `FOLDER/supervisor.lock`, which the kernel frees whatever becomes of it: a second one finds the lock held and
leaves. `FOLDER/supervisor.json` has its pid, for who wants to stop it; its arguments name the folder, so that another
process that got the pid later is not taken for it.

States::

    running --(agent ends)--> pausing (0.2 s, doubling to 30 s; anew after 60 s of running) --> running ...
    any --(SIGTERM, or FOLDER is gone)--> stopping: SIGTERM to the agent's process group, after the grace SIGKILL to
        all that is left

It sees to orphans of its agent too (Linux: they come to it and not to init), so that nothing is left when it ends. It
imports next to nothing: there is one for each workspace of a host.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, TextIO

import psutil

LOCK: Final = "supervisor.lock"
PROCESS: Final = "supervisor.json"
AGENT_LOG: Final = "agent.log"

_FIRST_PAUSE: Final = 0.2  # seconds
_LONGEST_PAUSE: Final = 30.0  # seconds
_STEADY: Final = 60.0  # seconds
_LOOK_AT_LOG: Final = 5.0  # seconds
_KILLED_WITHIN: Final = 5.0  # seconds
_PR_SET_CHILD_SUBREAPER: Final = 36


class Supervisor:
    """Keeps one agent running until it is told to stop."""

    def __init__(self, folder: Path, *, grace: float, log_size: int, command: Sequence[str]) -> None:
        """`grace` in seconds, `log_size` in bytes; the agent inherits environment and working folder."""
        self._folder = folder
        self._grace = grace
        self._log_size = log_size
        self._command = command
        self._agent: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause = _FIRST_PAUSE
        self._start_at = 0.0
        self._is_stopping = False
        self._wakeup, self._wake = os.pipe()
        for end in (self._wakeup, self._wake):
            os.set_blocking(end, False)

    def prepare(self) -> None:
        """Hear signals and adopt orphans; raises OSError where the agent cannot be started."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._note)
        signal.signal(signal.SIGTERM, self._stop_asked)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._start()

    def run(self) -> None:
        """Supervise until told to stop."""
        while not self._is_stopping:
            left = _LOOK_AT_LOG
            if self._agent is None:
                left = max(0.0, min(left, self._start_at - time.monotonic()))
            self._sleep(left)
            self._reap()
            if not self._is_stopping and self._agent is None and time.monotonic() >= self._start_at:
                try:
                    self._start()
                except OSError as error:
                    self._say(f"agent could not be started: {error}")
                    self._back_off()
            self._bound_log()
            # Somebody removed the workspace behind the daemon's back; nobody else would ever end this one.
            self._is_stopping = self._is_stopping or not self._folder.is_dir()
        self._stop()

    def _start(self) -> None:
        with (self._folder / AGENT_LOG).open("ab") as log:
            # A group of its own, so that a signal to it does not hit the supervisor.
            self._agent = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        self._started_at = time.monotonic()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._agent is not None and pid == self._agent.pid:
                self._agent.returncode = os.waitstatus_to_exitcode(status)
                self._agent_ended(self._agent.returncode)

    def _agent_ended(self, code: int) -> None:
        self._agent = None
        if self._is_stopping:
            return
        if time.monotonic() - self._started_at >= _STEADY:
            self._pause = _FIRST_PAUSE
        self._say(f"agent ended with {code}, starts again in {self._pause:g} s")
        self._back_off()

    def _back_off(self) -> None:
        self._start_at = time.monotonic() + self._pause
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)

    def _stop(self) -> None:
        if self._agent is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._agent.pid, signal.SIGTERM)
        self._wait_for_agent(self._grace)
        deadline = time.monotonic() + _KILLED_WITHIN
        while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._sleep(0.05)
            self._reap()

    def _wait_for_agent(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._agent is not None and time.monotonic() < deadline:
            self._sleep(deadline - time.monotonic())
            self._reap()

    def _sleep(self, seconds: float) -> None:
        """Wait for a signal, at most for so long."""
        ready, _, _ = select.select([self._wakeup], [], [], max(0.0, seconds))
        if ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, 4096)

    def _bound_log(self) -> None:
        """Begin the log anew when it is too large; who writes goes on in the same file, at its end."""
        log = self._folder / AGENT_LOG
        with contextlib.suppress(OSError):
            if log.stat().st_size > self._log_size:
                shutil.copyfile(log, log.with_name(f"{AGENT_LOG}.1"))
                os.truncate(log, 0)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError), (self._folder / AGENT_LOG).open("a", encoding="utf-8") as log:
            log.write(f"supervisor: {text}\n")

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        """Be there, so that the signal wakes `select`."""

    def _stop_asked(self, _number: int, _frame: FrameType | None) -> None:
        self._is_stopping = True


def main(argv: Sequence[str]) -> int:
    """Fork a supervisor; 0 once it, or another, supervises this folder."""
    separator = argv.index("--")
    folder, grace, log_size = argv[:separator]
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as pipe:
            problem = pipe.read()
        sys.stderr.write(problem)
        return 1 if problem else 0
    os.close(reading)
    os.setsid()
    _let_go_of_streams(Path(folder))
    supervisor = Supervisor(Path(folder), grace=float(grace), log_size=int(log_size), command=argv[separator + 1 :])
    with os.fdopen(writing, "w", encoding="utf-8") as pipe, contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context((Path(folder) / LOCK).open("w"))
            if not _locked(lock):
                return 0
            _write_process(Path(folder))
            supervisor.prepare()
        except OSError as error:
            pipe.write(f"agent could not be started: {error}\n")
            return 1
        pipe.close()
        supervisor.run()
    return 0


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _let_go_of_streams(folder: Path) -> None:
    """Whoever called must not wait for our end."""
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(folder / AGENT_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for descriptor in (null, log):
        os.close(descriptor)


def _write_process(folder: Path) -> None:
    scratch = folder / f".{PROCESS}.new"
    scratch.write_text(json.dumps({"pid": os.getpid()}) + "\n", encoding="utf-8")
    scratch.replace(folder / PROCESS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
