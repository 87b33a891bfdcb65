"""A NATS server per test process. Streams have fixed names, so a test begins with none, not with its own server."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.client import Client

from prebuilds.embedded.nats import EmbeddedNats
from prebuilds.events.jetstream import JetStreamError, ask
from prebuilds.events.streams import STREAM


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in a stream."""

    subject: str
    body: bytes
    headers: Mapping[str, str]


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """Runs as long as this test process, and dies with it even when that is killed."""
    server = embedded_nats(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def nats_url(nats_server: EmbeddedNats) -> str:
    """An address at which no stream exists yet: 10 ms, where a server of one's own takes 100."""
    async with nats_client(nats_server.url) as client:
        for stream in (await ask(client, "STREAM.NAMES"))["streams"] or ():
            await ask(client, f"STREAM.DELETE.{stream}")
    return nats_server.url


@pytest.fixture
def restartable_nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    """A running server of the test's own, to stop, kill and start; its address stays the same."""
    server = embedded_nats(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def nats_client(url: str) -> AsyncGenerator[Client]:
    """A plain client, to look at what is there, and to do what others would."""
    client = Client()
    try:
        await client.connect(url, allow_reconnect=False, max_reconnect_attempts=1, error_cb=_ignore)
        yield client
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """What goes wrong shows where the client is used."""


async def stored(client: Client, stream: str = STREAM) -> list[Stored]:
    """All messages of a stream, by age."""
    try:
        state = (await ask(client, f"STREAM.INFO.{stream}"))["state"]
    except JetStreamError as error:
        if error.is_not_found:
            return []
        raise
    found: list[Stored] = []
    for sequence in range(max(1, state["first_seq"]), state["last_seq"] + 1):
        message = (await ask(client, f"STREAM.MSG.GET.{stream}", {"seq": sequence}))["message"]
        lines = base64.b64decode(message.get("hdrs", "")).decode().splitlines()[1:]
        headers = dict(line.split(": ", 1) for line in lines if line)
        found.append(Stored(message["subject"], base64.b64decode(message.get("data", "")), headers))
    return found


def embedded_nats(folder: Path) -> EmbeddedNats:
    return EmbeddedNats(state_dir=folder, log_file=folder.with_suffix(".log"))
