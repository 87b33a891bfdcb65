from __future__ import annotations

import asyncio
from datetime import timedelta

from structlog.testing import capture_logs

from prebuilds.embedded.nats import EmbeddedNats
from prebuilds.events.connection import open_events
from prebuilds.events.jetstream import ask
from prebuilds.events.streams import STREAM
from tests.support.nats import nats_client
from tests.support.waiting import eventually


async def test_it_is_connected_and_the_streams_are_there_when_it_opens(nats_url: str) -> None:
    async with open_events(nats_url) as events, nats_client(nats_url) as client:
        assert events.is_connected
        assert await ask(client, f"STREAM.INFO.{STREAM}")
    assert not events.is_connected


async def test_it_opens_without_nats_and_connects_when_nats_comes(restartable_nats: EmbeddedNats) -> None:
    restartable_nats.stop()
    async with open_events(restartable_nats.url, wait_for_connection=timedelta(seconds=60)) as events:
        assert not events.is_connected
        restartable_nats.start()
        session = await asyncio.wait_for(events.connected(), 10)
        assert events.session is session


async def test_it_comes_back_after_every_restart(restartable_nats: EmbeddedNats) -> None:
    async with open_events(restartable_nats.url) as events:
        for end in (restartable_nats.stop, restartable_nats.kill):
            before = await asyncio.wait_for(events.connected(), 10)
            end()
            await asyncio.wait_for(before.lost(), 10)
            assert not events.is_connected
            restartable_nats.start()
            assert await asyncio.wait_for(events.connected(), 10) is not before


async def test_missing_streams_are_declared_again(nats_url: str) -> None:
    async with open_events(nats_url) as events, nats_client(nats_url) as client:
        session = await events.connected()
        await ask(client, f"STREAM.DELETE.{STREAM}")
        session.streams_missing.set()

        async def is_back() -> bool:
            return STREAM in ((await ask(client, "STREAM.NAMES"))["streams"] or ())

        await eventually(is_back)


async def test_no_password_is_logged(restartable_nats: EmbeddedNats) -> None:
    url = restartable_nats.url
    password = url.split(":")[2].split("@")[0]
    with capture_logs() as lines:
        async with open_events(url) as events:
            session = await events.connected()
            restartable_nats.kill()
            await asyncio.wait_for(session.lost(), 10)
            await eventually(lambda: any(line["event"] == "NATS is away" for line in lines))
        async with open_events(url.replace(password, "wrong-password")):
            pass
        restartable_nats.start()
        async with open_events(url.replace(password, "wrong-password")) as events:
            assert not events.is_connected
    assert any(line["event"] == "NATS connected" for line in lines)
    assert password not in str(lines)
    assert "wrong-password" not in str(lines)
