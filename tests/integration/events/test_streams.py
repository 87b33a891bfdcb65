from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.client import Client

from prebuilds.events.jetstream import JetStreamError, ask
from prebuilds.events.streams import DEAD_LETTERS, STREAM, StreamLimits, declare_streams
from tests.support.nats import nats_client


@pytest_asyncio.fixture
async def client(nats_url: str) -> AsyncGenerator[Client]:
    async with nats_client(nats_url) as connected:
        yield connected


async def info(client: Client, stream: str) -> dict[str, Any]:
    return dict(await ask(client, f"STREAM.INFO.{stream}"))


async def test_both_streams_are_made_with_their_limits(client: Client) -> None:
    await declare_streams(client, StreamLimits(max_bytes=1024**2))
    events = (await info(client, STREAM))["config"]
    assert events["subjects"] == ["prebuilds.v1.>"]
    assert (events["retention"], events["storage"]) == ("limits", "file")
    assert events["max_age"] == 3600 * 10**9
    assert events["duplicate_window"] == 120 * 10**9
    assert events["max_bytes"] == 1024**2
    assert (await info(client, DEAD_LETTERS))["config"]["subjects"] == ["prebuilds.dlq.v1.>"]


async def test_declaring_again_changes_nothing(client: Client) -> None:
    await declare_streams(client, StreamLimits())
    before = await info(client, STREAM)
    await declare_streams(client, StreamLimits())
    after = await info(client, STREAM)
    assert after["created"] == before["created"]
    assert after["config"] == before["config"]


async def test_other_limits_change_the_stream_and_keep_what_the_operator_set(client: Client) -> None:
    await declare_streams(client, StreamLimits())
    config = (await info(client, STREAM))["config"]
    await ask(client, f"STREAM.UPDATE.{STREAM}", {**config, "description": "ours", "metadata": {"team": "platform"}})

    await declare_streams(client, StreamLimits(max_age=timedelta(minutes=30)))

    config = (await info(client, STREAM))["config"]
    assert config["max_age"] == 1800 * 10**9
    assert config["description"] == "ours"
    assert config["metadata"]["team"] == "platform"


async def test_a_stream_that_cannot_be_changed_is_used_as_it_is(client: Client) -> None:
    await ask(client, f"STREAM.CREATE.{STREAM}", {"name": STREAM, "subjects": ["prebuilds.v1.>"], "storage": "memory"})
    await declare_streams(client, StreamLimits())
    assert (await info(client, STREAM))["config"]["storage"] == "memory"


async def test_a_stream_that_can_neither_be_found_nor_made_is_an_error(client: Client) -> None:
    with pytest.raises(JetStreamError, match="replicas"):
        await declare_streams(client, StreamLimits(replicas=3))


async def test_many_servers_with_different_limits_may_start_at_once(nats_url: str) -> None:
    ages = [timedelta(minutes=minutes) for minutes in range(30, 42)]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(nats_client(nats_url)) for _ in ages]
        await asyncio.gather(
            *(declare_streams(client, StreamLimits(max_age=age)) for client, age in zip(clients, ages, strict=True))
        )
        config = (await info(clients[0], STREAM))["config"]
    assert timedelta(microseconds=config["max_age"] / 1000) in ages
