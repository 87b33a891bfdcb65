"""Agents' processes as the daemon sees them: whether their supervisor lives, starting and stopping it. All blocking."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, cast

import psutil

from prebuilds.provisioner_daemon.backends.process.supervisor import LOCK, PROCESS

TOKEN: Final = "token"  # noqa: S105 - a file's name

MARKS: Final = ("PREBUILDS_AGENT_FOLDER", "PREBUILDS_WORK_OF")
"""Variables by which what belongs to a workspace is known: the agent's own, and that of whatever its scripts start."""

_SUPERVISOR: Final = "prebuilds.provisioner_daemon.backends.process.supervisor"
_STARTED_WITHIN: Final = 30.0  # seconds
_KILLED_WITHIN: Final = 10.0  # seconds
_POLL: Final = 0.02  # seconds


class StartError(Exception):
    """An agent could not be started; says why."""


@dataclass(frozen=True, slots=True)
class AgentTerms:
    """How agents are run."""

    command: Sequence[str]
    stop_grace: timedelta
    log_size: int
    """Bytes."""


def is_supervised(folder: Path) -> bool:
    """Whether a supervisor lives for this agent: it holds the lock, whatever has become of its pid."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def start(folder: Path, terms: AgentTerms, *, environment: Mapping[str, str], directory: Path) -> None:
    """Start a supervisor and with it the agent; nothing where one lives. Raises StartError."""
    command = [sys.executable, "-I", "-m", _SUPERVISOR, str(folder)]
    command += [str(terms.stop_grace.total_seconds()), str(terms.log_size), "--", *terms.command]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            timeout=_STARTED_WITHIN,
        )
    except subprocess.TimeoutExpired as error:
        raise StartError("the agent's supervisor did not start in time") from error
    if done.returncode != 0:
        raise StartError(done.stderr.decode(errors="replace").strip() or "the agent's supervisor ended at once")


def ask_to_stop(folder: Path) -> None:
    """Tell an agent's supervisor to stop it, and don't wait."""
    process = supervisor_of(folder)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()


def stop(folder: Path, terms: AgentTerms) -> None:
    """Stop an agent with its supervisor; nothing where none lives. Raises TimeoutError where it cannot be killed."""
    if not is_supervised(folder):
        return
    ask_to_stop(folder)
    if _gone_within(folder, terms.stop_grace.total_seconds() + _KILLED_WITHIN):
        return
    process = supervisor_of(folder)
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if not _gone_within(folder, _KILLED_WITHIN):
        raise TimeoutError("the agent's supervisor does not end")


def kill_all_of(workspace: Path) -> int:
    """Kill what still belongs to a workspace although its supervisors are gone; answers how many processes."""
    left = list(processes_of(workspace))
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_KILLED_WITHIN)
    return len(left)


def supervisor_of(folder: Path) -> psutil.Process | None:
    """The process that holds the lock; None where its pid is by now another's."""
    try:
        told = cast("dict[str, int]", json.loads((folder / PROCESS).read_text(encoding="utf-8")))
        process = psutil.Process(told["pid"])
        # Not its start time: that moves with the host's clock.
        is_same = str(folder) in process.cmdline()
    except (OSError, ValueError, KeyError, psutil.Error):
        return None
    return process if is_same else None


def _gone_within(folder: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_supervised(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def processes_of(workspace: Path) -> Iterator[psutil.Process]:
    """Every process that belongs to a workspace, by the marks in its environment."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue  # gone, or another user's and so none of ours
        if any(mark in environment and Path(environment[mark]).is_relative_to(workspace) for mark in MARKS):
            yield process
