"""The process as a process: signals, readiness and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from contextlib import asynccontextmanager
import asyncio, sys
from prebuilds.chassis.addresses import Addresses
from prebuilds.chassis.process import App, run_service
from prebuilds.chassis.settings import DatabaseSettings
from prebuilds.chassis.tasks import BackgroundTasks

@asynccontextmanager
async def open_app(settings):
    async with BackgroundTasks() as tasks:
        if settings.database_pool_size == 13:
            async def unlucky():
                raise RuntimeError("boom")
            tasks.spawn("unlucky", unlucky())
        yield App(tasks, Addresses(metrics="127.0.0.1:9"))
        if settings.database_pool_size == 99:
            print("closing", flush=True)
            await asyncio.Event().wait()
    print("closed", flush=True)

sys.exit(run_service("tiny", DatabaseSettings, open_app))
"""
ENVIRONMENT = {**os.environ, "PREBUILDS_DATABASE_URL": "postgresql://u:hunter2@db/x"}


def start(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *argv],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str], event: str) -> dict[str, str]:
    assert process.stderr is not None
    while True:
        line = process.stderr.readline()
        assert line, f"ended without saying {event!r}"
        said = json.loads(line)
        if said["event"] == event:
            return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    told = tmp_path / "addresses.json"
    process = start("--addresses-file", str(told))
    line_of(process, "ready")
    assert json.loads(told.read_text()) == {"metrics": "127.0.0.1:9"}
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output.strip()) == (0, "closed")
    assert "Traceback" not in errors


def test_a_second_signal_ends_it_on_the_spot() -> None:
    process = start("--database-pool-size", "99")
    line_of(process, "ready")
    process.terminate()
    assert process.stdout is not None
    assert process.stdout.readline() == "closing\n"
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (128 + signal.SIGTERM, "")


def test_a_failed_background_task_ends_it_with_1_after_closing() -> None:
    process = start("--database-pool-size", "13")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "background task failed" in errors


def test_a_bad_setting_ends_it_with_2_and_a_line() -> None:
    process = start("--database-pool-size", "many")
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, "")
    assert errors.startswith("prebuilds-tiny: --database-pool-size (PREBUILDS_DATABASE_POOL_SIZE): ")
    assert len(errors.strip().splitlines()) == 1
    assert "hunter2" not in errors
