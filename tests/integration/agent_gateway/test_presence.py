"""Connections and the gateway's own row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from sqlalchemy import update

from prebuilds.chassis.process import App, Process, serve
from prebuilds.chassis.settings import ProcessSettings
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.domain.ids import ConnectionId, GatewayId
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.gateways import refresh_gateway
from prebuilds.store.pool.connections import Connection, attach, detach
from tests.support import builders
from tests.support.builders import Built
from tests.support.gateway import FakeAgent, OpenGateway, connect, is_ready, pool_row, refused
from tests.support.waiting import eventually

DRAINING = (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def make_two_agents(database: Database) -> Built:
    organization_id = await builders.make_organization(database)
    pool = await builders.make_pool(database, organization_id, agents=["main", "side"])
    return await builders.make_prebuild(database, pool)


def connection(prebuild: Built, agent: str, *, incarnation: int = 0, attempt: int = 1, epoch: int = 1) -> Connection:
    return Connection(ConnectionId(uuid4()), prebuild.agents[agent], prebuild.workspace_id, epoch, incarnation, attempt)


async def attached(database: Database, gateway_id: GatewayId, *streams: Connection) -> int:
    async with database.transaction("test") as tx:
        return len(await attach(tx, gateway_id, streams))


async def detached(database: Database, *streams: Connection) -> None:
    async with database.transaction("test") as tx:
        await detach(tx, streams)


async def test_a_prebuild_is_connected_when_every_agent_is_attached(database: Database) -> None:
    prebuild = await make_two_agents(database)
    one, other = GatewayId(uuid4()), GatewayId(uuid4())
    assert (await pool_row(database, prebuild)).is_disconnected

    assert await attached(database, one, connection(prebuild, "main")) == 1
    assert (await pool_row(database, prebuild)).gateways is None
    side = connection(prebuild, "side")
    assert await attached(database, other, side) == 1

    row = await pool_row(database, prebuild)
    assert set(row.gateways or ()) == {one, other}
    assert not row.is_disconnected
    await detached(database, side)
    row = await pool_row(database, prebuild)
    assert row.gateways is None
    assert row.is_disconnected


async def test_of_an_agents_streams_the_highest_attempt_is_attached(database: Database) -> None:
    prebuild = await make_two_agents(database)
    gateway_id = GatewayId(uuid4())
    later = connection(prebuild, "main", attempt=2)

    assert await attached(database, gateway_id, later) == 1
    assert await attached(database, gateway_id, connection(prebuild, "main", attempt=1)) == 0
    assert await attached(database, gateway_id, connection(prebuild, "main", epoch=2, attempt=3)) == 0
    assert await attached(database, gateway_id, connection(prebuild, "side")) == 1
    await detached(database, connection(prebuild, "main", attempt=2))

    assert (await pool_row(database, prebuild)).gateways == (gateway_id,)


async def test_many_batches_at_once_lose_no_agent(database: Database) -> None:
    """Each locks the pool rows first, and counts in a later statement."""
    organization_id = await builders.make_organization(database)
    pool = await builders.make_pool(database, organization_id, agents=["main", "side"])
    prebuilds = [await builders.make_prebuild(database, pool) for _ in range(10)]
    gateway_id = GatewayId(uuid4())

    for attempt in range(1, 21):
        batches = [
            [connection(prebuild, agent, attempt=attempt) for prebuild in order]
            for agent, order in (("main", prebuilds), ("side", prebuilds[::-1]))
        ]
        await asyncio.gather(*(attached(database, gateway_id, *batch) for batch in batches))
        assert [(await pool_row(database, each)).gateways for each in prebuilds] == [(gateway_id,)] * 10
        await asyncio.gather(*(detached(database, *batch) for batch in batches))
        assert [(await pool_row(database, each)).gateways for each in prebuilds] == [None] * 10


async def test_retiring_the_missing_agent_connects_the_prebuild(database: Database) -> None:
    organization_id = await builders.make_organization(database)
    pool = await builders.make_pool(database, organization_id, agents=["main", "side"])
    prebuild = await builders.make_starting_prebuild(database, pool)
    await attached(database, GatewayId(uuid4()), connection(prebuild, "main"))

    await builders.end_build(database, prebuild.job_id, agents=["main"])

    assert (await pool_row(database, prebuild)).gateways is not None


async def test_a_stream_that_ends_is_detached_and_its_return_attached(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    stream = await connect(database, agent, prebuild)

    stream.cancel()

    async def is_disconnected() -> bool:
        return await is_ready(database, prebuild) == (True, False)

    await eventually(is_disconnected)
    agent.stream()
    await eventually(lambda: connected(database, prebuild))


async def test_a_stream_that_returned_is_not_detached_by_the_end_of_the_one_before(
    database: Database, open_gateway: OpenGateway
) -> None:
    async with open_gateway(detach_after="0s") as app, grpc.aio.insecure_channel(app.grpc) as channel:
        pool = await builders.make_pool(database, await builders.make_organization(database))
        one, other = [await builders.make_prebuild(database, pool) for _ in range(2)]
        agent, witness = FakeAgent(channel, one.agent_id), FakeAgent(channel, other.agent_id)
        stream = await connect(database, agent, one)
        later = await connect(database, witness, other)

        agent.stream()
        await refused(stream)
        later.cancel()

        async def is_detached() -> bool:
            return not await connected(database, other)

        # Ends are written down in their order: when the later one is, the earlier one was.
        await eventually(is_detached)
        assert await connected(database, one)


async def connected(database: Database, prebuild: Built) -> bool:
    return (await pool_row(database, prebuild)).gateways is not None


async def test_what_postgres_does_not_show_as_mine_is_attached_again(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    await connect(database, FakeAgent(channel, prebuild.agent_id), prebuild)
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Agent).values(gateway_id=None, connection_id=None))
        await tx.execute(update(schema.Prebuild).values(gateways=None))

    await eventually(lambda: connected(database, prebuild))


async def test_a_later_stream_on_another_gateway_ends_the_earlier(
    database: Database, channel: grpc.aio.Channel, open_gateway: OpenGateway
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    first = await connect(database, agent, prebuild)
    async with open_gateway() as other, grpc.aio.insecure_channel(other.grpc) as second_channel:
        moved = FakeAgent(second_channel, prebuild.agent_id)
        moved.incarnation = agent.incarnation
        moved.stream(attempt=2)

        assert await refused(first) == (grpc.StatusCode.UNAVAILABLE, "STREAM_REPLACED")
        assert await connected(database, prebuild)


async def test_a_gateway_shows_itself_while_it_lives(database: Database, open_gateway: OpenGateway) -> None:
    async with open_gateway() as app:
        assert await gateways(database) == [(app.grpc, True)]


async def gateways(database: Database) -> list[tuple[str, bool]]:
    async with database.transaction("test") as tx:
        cursor = await tx.run("SELECT address, seen_at > now() - interval '60 s' FROM gateways")
        return await cursor.fetchall()


@pytest.mark.parametrize("unseen,is_set_anew", [("59 s", False), ("61 s", True)])
async def test_live_since_is_set_anew_after_a_minute_unseen(unseen: str, is_set_anew: bool, database: Database) -> None:
    gateway_id = GatewayId(uuid4())
    async with database.transaction("test") as tx:
        await refresh_gateway(tx, gateway_id, "here:1")
    async with database.transaction("test") as tx:
        await tx.run(
            "UPDATE gateways SET seen_at = now() - %(unseen)s::interval, live_since = now() - interval '1 h'",
            {"unseen": unseen},
        )
    async with database.transaction("test") as tx:
        await refresh_gateway(tx, gateway_id, "here:1")

    async with database.transaction("test") as tx:
        cursor = await tx.run(
            "SELECT live_since > now() - interval '1 min', seen_at > now() - interval '1 min' FROM gateways"
        )
        assert await cursor.fetchall() == [(is_set_anew, True)]


async def test_a_draining_gateway_ends_streams_and_detaches_nobody(
    database: Database, open_gateway: OpenGateway
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    async with open_gateway(detach_after="0s") as app:
        channel = grpc.aio.insecure_channel(app.grpc)
        stream = await connect(database, FakeAgent(channel, prebuild.agent_id), prebuild)

    assert await refused(stream) == DRAINING
    await channel.close()
    assert await connected(database, prebuild)
    assert [is_live for _, is_live in await gateways(database)] == [True]


async def test_a_process_that_is_asked_to_stop_drains(database: Database, open_gateway: OpenGateway) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    opened: asyncio.Future[App] = asyncio.get_running_loop().create_future()
    async with BackgroundTasks() as tasks:
        process = Process(tasks)

        @asynccontextmanager
        async def open_one(_: ProcessSettings) -> AsyncGenerator[App]:
            async with open_gateway() as app:
                opened.set_result(app)
                yield app

        served = tasks.spawn("serve", serve(process, open_one, ProcessSettings(metrics_address="")))
        app = await opened
        async with grpc.aio.insecure_channel(app.grpc) as channel:
            stream = await connect(database, FakeAgent(channel, prebuild.agent_id), prebuild)

            process.stop()

            assert await refused(stream) == DRAINING
            await served
