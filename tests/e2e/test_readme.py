"""What the README says is typed, as it stands there, and has to come to what it shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from prebuilds.embedded.keys import ORGANIZATION
from prebuilds.embedded.tour import write_client_file
from prebuilds.v1 import pool_service_pb2
from tests.support.stack import PATIENCE, RunningSystem
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
# What differs from run to run: ids, ages, the suffix of a made name, and how much of a watch is seen.
CHANGING = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b\d+[smhd]\b|python-dev-[a-z0-9]{6}")


def _steps() -> list[tuple[str, list[str]]]:
    """Each command of the README with the output that it shows."""
    steps: list[tuple[str, list[str]]] = []
    for block in CONSOLE.findall((ROOT / "README.md").read_text()):
        for line in str(block).splitlines():
            if line.startswith("$ "):
                steps.append((line.removeprefix("$ "), []))
            else:
                steps[-1][1].append(line)
    return steps


def _settled(line: str) -> str:
    return CHANGING.sub("*", line).rstrip()


@pytest.fixture
def checkout(system: RunningSystem, tmp_path: Path) -> Path:
    """A folder as `make run` leaves it, around the worker's system."""
    for name in (".venv", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".prebuilds").symlink_to(system.stack.state.path)
    write_client_file(system.stack)
    return tmp_path


async def test_the_tour_of_the_readme_goes_as_it_is_written(system: RunningSystem, checkout: Path) -> None:
    await system.admin.push_template(ROOT / "examples/templates/python-dev", ORGANIZATION, activate=True)

    async def is_full() -> bool:
        request = pool_service_pb2.ListPoolsRequest(organization=ORGANIZATION)
        pools = (await system.admin.call(system.admin.pools.ListPools, request)).pools
        return any(pool.template_name == "python-dev" and pool.counts.eligible == 3 for pool in pools)

    await eventually(is_full, PATIENCE, what="the pool is full")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREBUILDS_")}
    for command, shown in _steps():
        words = shlex.split(command)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            environment[name] = value
            continue
        if words[0] == "unset":
            environment.pop(words[1])
            continue
        done = subprocess.run(
            ["/bin/sh", "-c", command], check=False, capture_output=True, text=True, cwd=checkout, env=environment
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said = [_settled(line) for line in done.stdout.splitlines()]
        if "--watch" in words:
            assert _settled(shown[0]) == said[0]
            assert _settled(shown[-1]) == said[-1]
        elif words[0] != "cat":
            missing = [line for line in map(_settled, shown) if line not in said]
            assert not missing, f"{command} said {said}"
        else:
            assert _settled(shown[-1]) in said
