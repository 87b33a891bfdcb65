from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from nats.errors import Error

from prebuilds.embedded.nats import HOST, EmbeddedNats
from prebuilds.events.jetstream import ask
from tests.support.nats import embedded_nats, nats_client
from tests.support.waiting import eventually


async def test_streams_and_address_stay_when_it_is_restarted(restartable_nats: EmbeddedNats) -> None:
    url = restartable_nats.url
    async with nats_client(url) as client:
        await ask(client, "STREAM.CREATE.KEPT", {"name": "KEPT", "subjects": ["kept"]})
    restartable_nats.stop()
    restartable_nats.start()
    assert restartable_nats.url == url
    async with nats_client(url) as client:
        assert (await ask(client, "STREAM.NAMES"))["streams"] == ["KEPT"]


async def test_a_new_supervisor_finds_the_old_address(restartable_nats: EmbeddedNats) -> None:
    url = restartable_nats.url
    restartable_nats.stop()
    successor = EmbeddedNats(restartable_nats.state_dir, restartable_nats.log_file)
    assert successor.url == url
    successor.start()
    assert successor.url == url
    successor.stop()


def test_another_port_is_taken_where_somebody_has_the_old_one(restartable_nats: EmbeddedNats) -> None:
    url = restartable_nats.url
    restartable_nats.stop()
    with socket.create_server((HOST, int(url.rpartition(":")[2]))):
        restartable_nats.start()
        assert restartable_nats.url != url


def test_starting_and_stopping_twice_is_doing_it_once(restartable_nats: EmbeddedNats) -> None:
    pid = restartable_nats.pid
    restartable_nats.start()
    assert restartable_nats.pid == pid
    restartable_nats.stop()
    restartable_nats.stop()
    assert restartable_nats.pid is None


async def test_nobody_gets_in_without_the_password(restartable_nats: EmbeddedNats) -> None:
    with pytest.raises(Error):
        async with nats_client(f"nats://{restartable_nats.url.rpartition('@')[2]}"):
            pass


def test_the_password_is_in_no_argument_and_no_readable_file(restartable_nats: EmbeddedNats) -> None:
    password = restartable_nats.url.split(":")[2].split("@")[0]
    arguments = Path(f"/proc/{restartable_nats.pid}/cmdline").read_text()
    assert password not in arguments
    holders = [
        file
        for file in restartable_nats.state_dir.rglob("*")
        if file.is_file() and password.encode() in file.read_bytes()
    ]
    assert holders
    assert all(file.stat().st_mode & 0o077 == 0 for file in holders)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child to its parent")
async def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from prebuilds.embedded.nats import EmbeddedNats\n"
        "server = EmbeddedNats(Path(sys.argv[1]), Path(sys.argv[2])); server.start()\n"
        "print(server.pid, flush=True); time.sleep(600)"
    )
    server = embedded_nats(tmp_path / "nats")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(server.state_dir), str(server.log_file)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)

    def is_gone() -> bool:
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"

    await eventually(is_gone)
