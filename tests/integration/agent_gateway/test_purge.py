"""An event that is lost between relay and gateway delays a handover and never loses it (behaviour section 8).

The loss is made, not hoped for: the server holds the gateway's consumer (JetStream's pause) while the event comes into
the stream, and the event is taken away before the consumer goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from nats.aio.client import Client

from prebuilds.agent_gateway.settings import GatewaySettings
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.events import EventKind
from prebuilds.events.connection import open_events
from prebuilds.events.jetstream import ask
from prebuilds.events.relay import open_relay
from prebuilds.events.streams import STREAM
from prebuilds.events.subjects import format_subject
from prebuilds.store.database import Database
from prebuilds.store.pool.claiming import Claimed
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import agent_pb2
from prebuilds.v1.agent_gateway_service_pb2 import StreamReinitResponse
from tests.support import builders
from tests.support.builders import Built
from tests.support.gateway import FakeAgent, OpenGateway, ReinitCall, Telling, claim_state, connect
from tests.support.nats import nats_client, stored
from tests.support.waiting import eventually

# The default, so that what is promised is tested: an agent hears within 10 s.
CHECK = GatewaySettings.model_fields["check_interval"].default
WITHIN = 10  # seconds


@dataclass(frozen=True)
class Stage:
    """An eligible prebuild whose agent holds a stream at a gateway, and NATS as its operator sees it."""

    database: Database
    pool: PoolKey
    prebuild: Built
    agent: FakeAgent
    stream: ReinitCall
    nats: Client
    telling: Telling = field(repr=False)

    async def lose_handover_due(self, how: str) -> Claimed:
        """Claim, bring the claim to where its handover is due, and lose the event of that on its way."""
        (consumer,) = await self.consumers()
        until = datetime.now(UTC) + timedelta(hours=1)
        await ask(self.nats, f"CONSUMER.PAUSE.{STREAM}.{consumer}", {"pause_until": until.isoformat()})
        claimed = await builders.claim_prebuild(self.database, self.pool, await builders.make_user(self.database))
        if await claim_state(self.database, claimed.claim_id) == "building":
            await builders.end_build(self.database, await builders.job_of(self.database, claimed.build_id))
        await eventually(self._is_published, what="the event is in the stream and not in the outbox any more")

        match how:
            case "purged":
                await ask(self.nats, f"STREAM.PURGE.{STREAM}")
                await ask(self.nats, f"CONSUMER.PAUSE.{STREAM}.{consumer}")
            case "consumer deleted":
                await ask(self.nats, f"CONSUMER.DELETE.{STREAM}.{consumer}")
            case _:
                await ask(self.nats, f"STREAM.DELETE.{STREAM}")
        return claimed

    async def consumers(self) -> Sequence[str]:
        return (await ask(self.nats, f"CONSUMER.NAMES.{STREAM}"))["consumers"] or ()

    def hints_heard(self) -> int:
        """How many hints of a handover reached the gateway."""
        points = self.telling.points("prebuilds_events_handled_total")
        return sum(point.value for point in points if point.attributes["event"] == EventKind.HANDOVER_DUE)

    async def hint(self) -> None:
        """Send the event once more, by hand."""
        await self.nats.publish(format_subject(EventKind.HANDOVER_DUE, self.prebuild.workspace_id))

    async def _is_published(self) -> bool:
        subject = format_subject(EventKind.HANDOVER_DUE, self.prebuild.workspace_id)
        async with self.database.transaction("test") as tx:
            waiting = await tx.fetch_one("SELECT count(*) FROM outbox", row=int)
        return waiting == 0 and subject in [message.subject for message in await stored(self.nats)]


@asynccontextmanager
async def open_stage(
    database: Database, open_gateway: OpenGateway, nats_url: str, strategy: ClaimStrategy, check_interval: timedelta
) -> AsyncGenerator[Stage]:
    telling = Telling()
    async with (
        open_gateway(telling, check_interval=check_interval) as app,
        open_events(nats_url) as events,
        # What a claims or provisioner process does at once with the events of its own transactions.
        open_relay(database, events),
        nats_client(nats_url) as nats,
        grpc.aio.insecure_channel(app.grpc) as channel,
    ):
        pool = await builders.make_pool(database, await builders.make_organization(database), strategy=strategy)
        prebuild = await builders.make_prebuild(database, pool)
        agent = FakeAgent(channel, prebuild.agent_id)
        yield Stage(database, pool, prebuild, agent, await connect(database, agent, prebuild), nats, telling)


async def received(stream: ReinitCall) -> StreamReinitResponse:
    async with asyncio.timeout(WITHIN):
        message = await stream.read()
    assert isinstance(message, StreamReinitResponse), await stream.code()
    return message


async def all_that_follows(stage: Stage) -> list[agent_pb2.Reinit]:
    """What else comes on the stream: when the event comes after all, and until the gateway ends the stream."""
    await stage.hint()
    await eventually(lambda: stage.hints_heard() == 1)
    await stage.agent.become_ready()
    # Nothing tells the gateway at once that the stream's incarnation has ended; any hint makes it look.
    await stage.hint()
    more: list[agent_pb2.Reinit] = []

    async def read_on() -> None:
        while (message := await stage.stream.read()) is not grpc.aio.EOF:
            assert isinstance(message, StreamReinitResponse)
            more.append(message.reinit)

    with pytest.raises(grpc.aio.AioRpcError):
        await read_on()
    assert await stage.stream.code() is grpc.StatusCode.ABORTED
    return more


async def test_a_purged_event_delays_the_handover_until_the_next_check(
    database: Database, open_gateway: OpenGateway, nats_url: str
) -> None:
    async with open_stage(database, open_gateway, nats_url, ClaimStrategy.PROVISION, CHECK) as stage:
        claimed = await stage.lose_handover_due("purged")

        message = await received(stage.stream)

        assert (message.reinit.generation, message.reinit.claim_id) == (1, str(claimed.claim_id))
        assert (stage.hints_heard(), stage.agent.attempt) == (0, 1)
        assert await all_that_follows(stage) == []
        assert await claim_state(database, claimed.claim_id) == "acknowledged"


@pytest.mark.parametrize("strategy", ClaimStrategy)
@pytest.mark.parametrize("how", ["consumer deleted", "stream deleted"])
async def test_an_event_lost_with_its_consumer_is_made_good_once_there_is_another(
    database: Database, open_gateway: OpenGateway, nats_url: str, how: str, strategy: ClaimStrategy
) -> None:
    # No check comes within this test: the new consumer alone makes the gateway look.
    async with open_stage(database, open_gateway, nats_url, strategy, timedelta(seconds=30)) as stage:
        (first,) = await stage.consumers()
        claimed = await stage.lose_handover_due(how)

        message = await received(stage.stream)

        assert (message.reinit.generation, message.reinit.claim_id) == (1, str(claimed.claim_id))
        assert (stage.hints_heard(), stage.agent.attempt) == (0, 1)
        assert first not in await stage.consumers()
        assert await all_that_follows(stage) == []
        assert await claim_state(database, claimed.claim_id) == "acknowledged"
