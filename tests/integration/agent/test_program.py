from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prebuilds.domain.agents import AgentState
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.v1.agent_pb2 import StartupScript
from tests.support.os_processes import is_running
from tests.support.scripted_gateway import TOKEN, ScriptedGateway, serve_gateway
from tests.support.waiting import eventually

LIMIT = 30.0


@dataclass
class Program:
    folder: Path
    process: asyncio.subprocess.Process

    def status(self) -> dict[str, Any]:
        path = self.folder / "agent.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def log(self) -> str:
        return (self.folder / "stderr").read_text()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), LIMIT)


@asynccontextmanager
async def run_program(
    gateway: ScriptedGateway, folder: Path, more: Mapping[str, str] | None = None
) -> AsyncGenerator[Program]:
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(f"{TOKEN}\n")
    environment = {
        "PATH": os.environ["PATH"],
        "PREBUILDS_AGENT_TOKEN_FILE": str(folder / "token"),
        "PREBUILDS_GATEWAY_URL": f"http://{gateway.address}",
        "PREBUILDS_AGENT_FOLDER": str(folder),
        **(more or {}),
    }
    with (folder / "stderr").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "prebuilds.agent", cwd=folder, env=environment, stderr=stderr
        )
    try:
        yield Program(folder, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def with_script(gateway: ScriptedGateway, command: str) -> None:
    gateway.manifest.startup_scripts.append(StartupScript(name="startup", command=command))


async def test_an_agent_is_handed_over_in_one_process_and_shows_it(tmp_path: Path) -> None:
    async with serve_gateway(ScriptedGateway()) as gateway:
        with_script(gateway, 'echo "$PREBUILDS_OWNER" >> owners; sleep 1000 & echo $! > child')
        async with run_program(gateway, tmp_path / "agent", {"PREBUILDS_LOG_FORMAT": "console"}) as program:
            await gateway.reported(1, AgentState.READY)
            stream = await gateway.stream(1)
            before = program.status()
            left_running = int((program.folder / "child").read_text())
            gateway.hand_over("alice")
            stream.send(1)
            await gateway.reported(2, AgentState.READY)
            await eventually(lambda: "reinitialized owner=alice generation=1" in program.log())
            after = program.status()
            (await gateway.stream(2)).end()
            await eventually(lambda: not program.status()["is_asking"])
            assert await program.end() == 0
            assert (program.folder / "owners").read_text() == "prebuilds\nalice\n"
            assert (before["owner"], before["generation"], before["state"]) == ("prebuilds", 0, "ready")
            assert (after["owner"], after["generation"], after["state"], after["incarnation"]) == (
                "alice",
                1,
                "ready",
                2,
            )
            assert before["pid"] == after["pid"] == program.process.pid
            assert program.log().count("reinitialized") == 1
            assert not is_running(left_running)
            assert gateway.states(2)[-2:] == ["shutting_down", "off"]
            assert program.status()["state"] == "off"


async def test_a_startup_that_fails_is_reported_and_the_agent_stays(tmp_path: Path) -> None:
    async with serve_gateway(ScriptedGateway()) as gateway:
        with_script(gateway, "echo no disk; exit 3")
        async with run_program(gateway, tmp_path / "agent") as program:
            report = await gateway.reported(1, AgentState.START_ERROR)
            assert report.error == "script 'startup' ended with status 3\nno disk"
            assert not (await gateway.stream(1)).is_closed
            await eventually(lambda: program.status()["state"] == "start_error")
            assert program.status()["error"] == report.error
            assert await program.end() == 0


async def test_sigterm_in_the_middle_of_a_startup_ends_it_and_the_agent(tmp_path: Path) -> None:
    async with serve_gateway(ScriptedGateway()) as gateway:
        with_script(gateway, "echo $$ > child; sleep 1000")
        async with run_program(gateway, tmp_path / "agent") as program:
            await gateway.reported(1, AgentState.STARTING)
            child = int(await eventually(lambda: _text(program.folder / "child")))
            assert await program.end() == 0
            assert not is_running(child)
            assert gateway.states(1) == ["starting", "shutting_down", "off"]


async def test_an_agent_whose_gateway_is_away_waits_for_it_and_ends_when_asked_to(tmp_path: Path) -> None:
    gateway = ScriptedGateway()
    async with serve_gateway(gateway):
        port = gateway.port
    async with run_program(gateway, tmp_path / "agent") as program:
        await eventually(lambda: program.log().count("manifest not answered") >= 2)
        async with serve_gateway(gateway, port):
            await gateway.reported(1, AgentState.READY)
        await eventually(lambda: "stream ended" in program.log())
        assert program.process.returncode is None
        assert await program.end(signal.SIGINT) == 0


async def test_a_restarted_agent_is_another_process_with_the_work_of_its_manifest_only(tmp_path: Path) -> None:
    async with serve_gateway(ScriptedGateway()) as gateway:
        with_script(gateway, "setsid sleep 1000 & echo $! > child-$PREBUILDS_OWNER")
        async with run_program(gateway, tmp_path / "agent") as program:
            await gateway.reported(1, AgentState.READY)
            assert await program.end(signal.SIGKILL) == -signal.SIGKILL
        left = int((program.folder / "child-prebuilds").read_text())
        assert is_running(left)
        gateway.hand_over("alice")
        async with run_program(gateway, tmp_path / "agent") as program:
            await gateway.reported(2, AgentState.READY)
            await eventually(lambda: not is_running(left))
            assert await program.end() == 0
        (first, _), (second, entry) = gateway.begun
        assert first != second
        assert entry == 1


async def test_the_token_is_in_no_output_no_argument_and_no_environment_of_a_script(tmp_path: Path) -> None:
    async with serve_gateway(ScriptedGateway()) as gateway:
        with_script(gateway, "env > seen; tr '\\0' ' ' < /proc/$PPID/cmdline >> seen")
        gateway.refuse("GetManifest", Refusal(Reason.CREDENTIALS_INVALID, f"not valid: {TOKEN}"))
        async with run_program(gateway, tmp_path / "agent", {"PREBUILDS_LOG_LEVEL": "debug"}) as program:
            await gateway.reported(1, AgentState.READY)
            assert await program.end() == 0
            for name in ("seen", "stderr", "agent.json", "startup.log"):
                content = (program.folder / name).read_text()
                assert TOKEN not in content, name
            assert "TOKEN_FILE" not in (program.folder / "seen").read_text()


@pytest.mark.parametrize(
    "environment, problem",
    [
        ({}, "--agent-token-file (PREBUILDS_AGENT_TOKEN_FILE): Field required"),
        ({"PREBUILDS_GATEWAY_URL": "nowhere"}, "--gateway-url (PREBUILDS_GATEWAY_URL): address 'nowhere' must be"),
        ({"PREBUILDS_LOG_LEVEL": "loud"}, "--log-level (PREBUILDS_LOG_LEVEL)"),
    ],
)
def test_bad_settings_are_told_in_a_line_each(environment: dict[str, str], problem: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "prebuilds.agent"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert problem in ended.stderr
    assert "Traceback" not in ended.stderr


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
