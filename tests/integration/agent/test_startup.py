from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from prebuilds.agent.startup import StartupWork
from prebuilds.sdk.agent import Started, StartFailed, StartTimedOut
from prebuilds.v1.agent_pb2 import Manifest, StartupScript
from tests.support.os_processes import is_running
from tests.support.waiting import eventually


def script(command: str, name: str = "startup", timeout: timedelta | None = None) -> StartupScript:
    limit = None
    if timeout is not None:
        limit = Duration()
        limit.FromTimedelta(timeout)
    return StartupScript(name=name, command=command, timeout=limit)


def manifest(*scripts: StartupScript, owner: str = "prebuilds", directory: str = "") -> Manifest:
    return Manifest(owner_name=owner, startup_scripts=scripts, directory=directory)


def make_work(folder: Path, grace: float = 10) -> StartupWork:
    return StartupWork(
        folder=folder, workspace_folder=folder, environment={"PATH": os.environ["PATH"]}, stop_grace=grace
    )


@pytest_asyncio.fixture
async def work(tmp_path: Path) -> AsyncIterator[StartupWork]:
    made = make_work(tmp_path)
    yield made
    await made.stop()


async def process_in(path: Path) -> int:
    """The process number that a script writes to that file."""
    return int(await eventually(lambda: path.exists() and path.read_text().strip()))


async def test_scripts_run_in_order_in_the_manifests_folder_and_their_output_is_logged(
    work: StartupWork, tmp_path: Path
) -> None:
    (tmp_path / "project").mkdir()
    scripts = [script("pwd; echo first >> order", "one"), script("echo second >> order; echo oops >&2", "two")]
    assert await work.start(manifest(*scripts, directory="project")) == Started()
    assert (tmp_path / "project/order").read_text() == "first\nsecond\n"
    log = (tmp_path / "startup.log").read_text()
    assert log == f"--- one\n{tmp_path}/project\n--- two\noops\n"


async def test_a_script_in_a_file_lies_in_the_workspaces_folder(work: StartupWork, tmp_path: Path) -> None:
    (tmp_path / "startup.sh").write_text('#!/bin/sh\necho "hello $PREBUILDS_OWNER" > said\n')
    (tmp_path / "startup.sh").chmod(0o755)
    by_path = StartupScript(name="startup", path="./startup.sh")
    assert await work.start(manifest(by_path, owner="alice")) == Started()
    assert (tmp_path / "said").read_text() == "hello alice\n"


async def test_without_scripts_the_startup_has_ended(work: StartupWork) -> None:
    assert await work.start(manifest()) == Started()


async def test_a_script_that_fails_ends_the_startup_with_what_it_said(work: StartupWork, tmp_path: Path) -> None:
    result = await work.start(manifest(script("echo no disk; exit 3"), script("touch never")))
    assert result == StartFailed("script 'startup' ended with status 3\nno disk")
    assert not (tmp_path / "never").exists()


async def test_a_script_ended_by_a_signal_says_which(work: StartupWork) -> None:
    result = await work.start(manifest(script("kill -KILL $$")))
    assert isinstance(result, StartFailed)
    assert "was ended by SIGKILL" in result.error


@pytest.mark.parametrize("exists", [False, True], ids=["missing", "not executable"])
async def test_a_script_that_cannot_be_run_is_a_failure_with_its_cause(
    work: StartupWork, tmp_path: Path, exists: bool
) -> None:
    if exists:
        (tmp_path / "startup.sh").write_text("#!/bin/sh\n")
    result = await work.start(manifest(StartupScript(name="startup", path="startup.sh")))
    assert isinstance(result, StartFailed)
    assert "cannot be run" in result.error


async def test_a_script_that_takes_too_long_is_killed_with_its_children(work: StartupWork, tmp_path: Path) -> None:
    command = "echo waiting; sleep 1000 & echo $! > child; wait"
    result = await work.start(manifest(script(command, timeout=timedelta(milliseconds=500))))
    assert result == StartTimedOut("script 'startup' was killed after 0.5 s\nwaiting")
    child = await process_in(tmp_path / "child")
    await eventually(lambda: not is_running(child))


async def test_of_a_long_output_the_end_is_told(work: StartupWork) -> None:
    result = await work.start(manifest(script("seq 10000; exit 1")))
    assert isinstance(result, StartFailed)
    assert result.error.endswith("9999\n10000")
    assert len(result.error) < 2200


async def test_stopping_ends_what_a_script_left_running(work: StartupWork, tmp_path: Path) -> None:
    assert await work.start(manifest(script("sleep 1000 & echo $! > child"))) == Started()
    child = await process_in(tmp_path / "child")
    assert is_running(child)
    await work.stop()
    assert not is_running(child)


async def test_what_made_a_session_of_its_own_is_ended_too(work: StartupWork, tmp_path: Path) -> None:
    assert await work.start(manifest(script("setsid sh -c 'echo $$ > child; exec sleep 1000' &"))) == Started()
    child = await process_in(tmp_path / "child")
    await work.stop()
    assert not is_running(child)


async def test_what_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    work = make_work(tmp_path, grace=0.2)
    command = "sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 0.05; done' &"
    assert await work.start(manifest(script(command))) == Started()
    child = await process_in(tmp_path / "child")
    await work.stop()
    assert not is_running(child)


async def test_a_startup_that_is_cancelled_leaves_nothing_once_stopped(work: StartupWork, tmp_path: Path) -> None:
    startup = asyncio.ensure_future(work.start(manifest(script("echo $$ > child; sleep 1000"))))
    child = await process_in(tmp_path / "child")
    startup.cancel()
    await asyncio.gather(startup, return_exceptions=True)
    await work.stop()
    assert not is_running(child)


async def test_a_new_agent_finds_what_a_killed_one_left_running(work: StartupWork, tmp_path: Path) -> None:
    assert await work.start(manifest(script("setsid sleep 1000 & echo $! > child"))) == Started()
    child = await process_in(tmp_path / "child")
    await make_work(tmp_path).stop()
    assert not is_running(child)


async def test_the_work_of_another_agent_is_left_alone(work: StartupWork, tmp_path: Path) -> None:
    assert await work.start(manifest(script("sleep 1000 & echo $! > child"))) == Started()
    child = await process_in(tmp_path / "child")
    (tmp_path / "other").mkdir()
    await make_work(tmp_path / "other").stop()
    assert is_running(child)


async def test_the_log_of_a_new_owner_holds_nothing_of_the_one_before(work: StartupWork, tmp_path: Path) -> None:
    await work.start(manifest(script("echo secret of the one before")))
    await work.stop()
    await work.start(manifest(script("echo hello"), owner="alice"))
    assert (tmp_path / "startup.log").read_text() == "--- startup\nhello\n"
