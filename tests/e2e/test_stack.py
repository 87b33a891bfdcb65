"""The laptop stack as people use it: `make smoke`, `make run`, Ctrl-C, `make run` again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PATIENCE = 90
IS_UP = "A token for other clients"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user whom Postgres runs as can reach, too."""
    made = Path(tempfile.mkdtemp(prefix="prebuilds-run-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    left = [process.pid for process in processes_of(made)]
    for pid in left:
        psutil.Process(pid).kill()
    shutil.rmtree(made, ignore_errors=True)
    assert not left


def processes_of(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


class Terminal:
    """Somebody's terminal in which `prebuilds-embedded run` runs."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "the state"
        self._output = folder / "output.txt"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prebuilds.embedded", "run", "--state", str(self.state)],
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )

    @property
    def screen(self) -> str:
        return self._output.read_text()

    async def is_up(self) -> None:
        await eventually(lambda: IS_UP in self.screen or self.process.poll() is not None, PATIENCE)
        assert IS_UP in self.screen, self.screen

    async def ctrl_c(self) -> None:
        self.process.send_signal(signal.SIGINT)
        await eventually(lambda: self.process.poll() is not None, PATIENCE, what="the stack has ended")
        assert self.process.returncode == 0, self.screen

    def type(self, *words: str) -> str:
        variables = {
            "PREBUILDS_CLIENT_FILE": str(self.state / "client.toml"),
            "PREBUILDS_TOKEN_FILE": str(self.state / "keys/alice.token"),
        }
        return subprocess.run(
            [sys.executable, "-m", "prebuilds.cli", *words],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
        ).stdout


def test_smoke_claims_a_workspace_and_leaves_nothing() -> None:
    before = set(Path(tempfile.gettempdir()).glob("prebuilds-smoke-*"))

    done = subprocess.run(
        [sys.executable, "-m", "prebuilds.embedded", "smoke"], check=False, capture_output=True, text=True, cwd=ROOT
    )

    assert done.returncode == 0, done.stderr
    assert re.search(r"agent ready: owner alice, generation 1", done.stdout)
    assert re.search(r"start to first claimed workspace: \d+\.\d s", done.stdout)
    assert set(Path(tempfile.gettempdir()).glob("prebuilds-smoke-*")) <= before


async def test_a_stack_comes_back_with_all_that_was_in_it(folder: Path) -> None:
    first = Terminal(folder)
    await first.is_up()
    workspaces = first.type("workspaces", "list")
    await first.ctrl_c()
    assert not processes_of(folder)

    second = Terminal(folder)
    await second.is_up()

    assert "3 of 3 prebuilds ready, 1 workspaces" in second.screen
    assert [line.split()[:4] for line in second.type("workspaces", "list").splitlines()] == [
        line.split()[:4] for line in workspaces.splitlines()
    ]
    await second.ctrl_c()


async def test_postgres_and_nats_that_fall_are_started_again(folder: Path) -> None:
    terminal = Terminal(folder)
    await terminal.is_up()
    postgres = int((terminal.state / "postgres/data/postmaster.pid").read_text().splitlines()[0])
    (nats,) = (process for process in processes_of(folder) if "nats-server" in process.cmdline()[0])

    os.kill(postgres, signal.SIGKILL)
    nats.kill()
    await eventually(lambda: "postgres ended" in terminal.screen and "nats ended" in terminal.screen, PATIENCE)

    assert "claim acknowledged" in terminal.type("workspaces", "create", "python-dev", "--watch")
    await terminal.ctrl_c()


async def test_a_second_stack_on_the_same_state_is_refused(folder: Path) -> None:
    first = Terminal(folder)
    await eventually((first.state / "lock").exists, PATIENCE)

    second = Terminal(folder)

    await eventually(lambda: second.process.poll() is not None, PATIENCE)
    assert second.process.returncode == 1
    assert "a stack runs on" in second.screen
    await first.ctrl_c()
