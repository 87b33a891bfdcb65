"""A watch of pools is one stream without a seam, however often the server's streams end."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest

from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.sdk.client import PrebuildsClient, open_client
from prebuilds.sdk.errors import PrebuildsError
from prebuilds.sdk.watching import watch_pools
from prebuilds.v1 import pool_pb2, pool_service_pb2
from prebuilds.v1.pool_service_pb2_grpc import PoolServiceServicer, add_PoolServiceServicer_to_server
from tests.support.scripted_gateway import abort

DRAINING = Refusal(Reason.DRAINING, "shutting down")
NOT_THERE = Refusal(Reason.NOT_FOUND, "no such organisation")

Step = pool_service_pb2.WatchPoolsResponse | Refusal
Seen = tuple[dict[str, int], list[str], bool]


class Pools(PoolServiceServicer):
    """Each watch gets the next of these streams; the last one stays open."""

    def __init__(self) -> None:
        self.streams: deque[list[Step]] = deque()

    async def WatchPools(
        self, request: pool_service_pb2.WatchPoolsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pool_service_pb2.WatchPoolsResponse]:
        for step in self.streams.popleft():
            if isinstance(step, Refusal):
                await abort(context, step)
            else:
                yield step
        if not self.streams:
            await asyncio.Event().wait()


CLOCK = itertools.count(1)


def message(*removed: str, synced: bool = True, **eligible: int) -> Step:
    """Pools by their counts, each looked at later than the one before."""
    pools = [pool_pb2.Pool(id=id_, counts=pool_pb2.PoolCounts(eligible=number)) for id_, number in eligible.items()]
    for pool in pools:
        pool.snapshot_time.FromSeconds(next(CLOCK))
    return pool_service_pb2.WatchPoolsResponse(pools=pools, removed_ids=removed, synced=synced)


@asynccontextmanager
async def open_scripted(*streams: list[Step]) -> AsyncGenerator[PrebuildsClient]:
    pools = Pools()  # pyright: ignore[reportAbstractUsage] - methods that no test calls
    pools.streams.extend(streams)
    server = grpc.aio.server()
    add_PoolServiceServicer_to_server(pools, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with open_client(reconciler=address, claims=address) as client:
            yield client
    finally:
        await server.stop(None)


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


async def _seen(client: PrebuildsClient, count: int) -> list[Seen]:
    seen: list[Seen] = []
    async with aclosing(watch_pools(client, "default", sleep=_at_once)) as messages:
        while len(seen) < count:
            each = await anext(messages)
            seen.append(({pool.id: pool.counts.eligible for pool in each.pools}, list(each.removed_ids), each.synced))
    return seen


async def test_messages_are_passed_on_as_they_come() -> None:
    async with open_scripted([message(a=1, synced=False), message(b=1), message(a=2), message("b")]) as client:
        assert await _seen(client, 4) == [
            ({"a": 1}, [], False),
            ({"b": 1}, [], True),
            ({"a": 2}, [], True),
            ({}, ["b"], True),
        ]


async def test_after_a_cut_only_what_changed_meanwhile_is_told() -> None:
    first = [message(a=1, b=1, c=1), DRAINING]
    second = [message(a=1, b=2, d=1)]
    async with open_scripted(first, second) as client:
        assert await _seen(client, 2) == [({"a": 1, "b": 1, "c": 1}, [], True), ({"b": 2, "d": 1}, ["c"], True)]


async def test_what_is_gone_is_told_only_when_the_new_stream_is_complete() -> None:
    first = [message(a=1, b=1), DRAINING]
    second = [message(a=2, synced=False), message(b=1), message(a=3)]
    async with open_scripted(first, second) as client:
        assert await _seen(client, 3) == [({"a": 1, "b": 1}, [], True), ({"a": 2}, [], True), ({"a": 3}, [], True)]


async def test_a_stream_that_ends_well_begins_anew_as_well() -> None:
    async with open_scripted([message(a=1)], [message(a=1)], [message(a=2)]) as client:
        assert await _seen(client, 2) == [({"a": 1}, [], True), ({"a": 2}, [], True)]


async def test_that_no_pool_matches_is_told_once() -> None:
    async with open_scripted([message()], [message()], [message(a=1)]) as client:
        assert await _seen(client, 2) == [({}, [], True), ({"a": 1}, [], True)]


async def test_it_is_told_that_the_server_stays_away_and_that_it_is_back() -> None:
    heard: list[str] = []
    async with open_scripted([message(a=1), DRAINING], [DRAINING], [DRAINING], [message(a=2)]) as client:
        stream = watch_pools(
            client,
            "default",
            tell=lambda error: heard.append("back" if error is None else error.message),
            sleep=_at_once,
        )
        async with aclosing(stream) as messages:
            await anext(messages)
            await anext(messages)
    assert heard == ["shutting down", "back"]


@pytest.mark.parametrize("refusal", [NOT_THERE, DRAINING])
async def test_what_fails_at_first_is_raised(refusal: Refusal) -> None:
    async with open_scripted([refusal]) as client:
        with pytest.raises(PrebuildsError) as caught:
            await _seen(client, 1)
    assert caught.value.reason is refusal.reason


async def test_a_watch_gives_up_when_the_server_stays_away() -> None:
    async with open_scripted([message(a=1), DRAINING]) as client:
        with pytest.raises(PrebuildsError) as caught:
            async for _ in watch_pools(client, "default", give_up_after=timedelta(0)):
                pass
    assert caught.value.reason is Reason.DRAINING
