"""The embedded server: keeps its data, dies with its program, and is not confused by what a dead one left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from prebuilds.embedded.postgres import EmbeddedPostgres, PostgresError
from tests.support.waiting import eventually


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(folder / "data", folder / "s", folder / "log", {"fsync": "off"})
    yield server
    server.stop()


def _count(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.url("mine")) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
        assert row is not None
        return row[0]


def _keep_one(server: EmbeddedPostgres) -> None:
    server.create_database("mine")
    with psycopg.connect(server.url("mine")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1")


def test_a_server_finds_its_data_again(server: EmbeddedPostgres) -> None:
    server.start()
    _keep_one(server)
    server.create_database("mine")
    server.stop()
    server.stop()
    assert server.pid is None

    server.start()
    server.start()

    assert _count(server) == 1


async def test_a_stale_pid_file_of_a_living_stranger_is_no_server(server: EmbeddedPostgres) -> None:
    server.start()
    _keep_one(server)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await eventually(lambda: server.pid is None)
    pid_file = server.data_dir / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    # A process of the server's own user, which is what Postgres itself would take for a server.
    stranger = subprocess.Popen(["sleep", "60"], user=server.data_dir.stat().st_uid)
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        (server.socket_dir / ".s.PGSQL.5432.lock").write_text(pid_file.read_text())
        server.start()
        assert _count(server) == 1
    finally:
        stranger.kill()
        stranger.wait()


def test_two_servers_on_the_same_data_are_refused(
    server: EmbeddedPostgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prebuilds.embedded.postgres.STOP_TIMEOUT", timedelta(milliseconds=100))
    server.start()
    second = EmbeddedPostgres(folder / "data", folder / "s2", folder / "log2")

    with pytest.raises(PostgresError, match=r"runs on .* already"):
        second.start()


async def test_a_server_dies_with_a_killed_program_and_starts_again(server: EmbeddedPostgres, folder: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from prebuilds.embedded.postgres import EmbeddedPostgres\n"
        "folder = Path(sys.argv[1])\n"
        "server = EmbeddedPostgres(folder / 'data', folder / 's', folder / 'log', {'fsync': 'off'})\n"
        "server.start(); server.create_database('mine'); print(server.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        child.kill()

    server.start()

    await eventually(lambda: not Path(f"/proc/{pid}").exists())
    with psycopg.connect(server.url("mine")):
        pass


def test_a_half_made_data_folder_is_made_anew(server: EmbeddedPostgres) -> None:
    half = server.data_dir.with_name("data.new")
    half.mkdir(parents=True)
    (half / "rubbish").write_text("")

    server.start()

    assert not (server.data_dir / "rubbish").exists()


def test_a_socket_path_that_is_too_long_is_named(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "data", folder / ("x" * 100), folder / "log")

    with pytest.raises(PostgresError, match="too long for a socket"):
        server.start()


def test_a_server_that_cannot_start_says_why(server: EmbeddedPostgres) -> None:
    server.settings = {"shared_buffers": "nonsense"}

    with pytest.raises(PostgresError, match="nonsense"):
        server.start()
