"""StreamReinit: every row of the table, also where it changes under a held stream."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest
from pydantic import SecretStr
from sqlalchemy import update

from prebuilds.agent_gateway.attaching import Attaching
from prebuilds.agent_gateway.streams import HeldStreams
from prebuilds.chassis.loops import Wakeups
from prebuilds.domain.builds import BuildOutcome, Transition
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import GatewayId
from prebuilds.domain.principals import Agent
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.events.connection import open_events
from prebuilds.events.relay import open_relay
from prebuilds.store import schema
from prebuilds.store.database import Database, open_database
from prebuilds.store.pool.claiming import Claimed
from prebuilds.store.pool.connections import Connection
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import agent_pb2
from prebuilds.v1.agent_gateway_service_pb2 import StreamReinitResponse
from tests.support import builders
from tests.support.builders import KEYS, Built
from tests.support.gateway import (
    AWAY,
    FakeAgent,
    OpenGateway,
    ReinitCall,
    Telling,
    claim_state,
    connect,
    everything,
    refused,
)
from tests.support.waiting import eventually

ABORTED = (grpc.StatusCode.ABORTED, "STALE_INCARNATION")
REVOKED = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REVOKED")
REPLACED = (grpc.StatusCode.UNAVAILABLE, "STREAM_REPLACED")


async def make_pool(database: Database, strategy: ClaimStrategy = ClaimStrategy.INSTANT) -> PoolKey:
    return await builders.make_pool(database, await builders.make_organization(database), strategy=strategy)


@dataclass(frozen=True)
class Stage:
    """A prebuild whose only agent holds a stream, and which is eligible."""

    pool: PoolKey
    prebuild: Built
    agent: FakeAgent
    stream: ReinitCall

    async def claim(self, database: Database) -> Claimed:
        return await builders.claim_prebuild(database, self.pool, await builders.make_user(database))


async def set_up(
    database: Database, channel: grpc.aio.Channel, strategy: ClaimStrategy = ClaimStrategy.INSTANT
) -> Stage:
    pool = await make_pool(database, strategy)
    prebuild = await builders.make_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    return Stage(pool, prebuild, agent, await connect(database, agent, prebuild))


async def reinit(stream: ReinitCall) -> agent_pb2.Reinit:
    """The next message, which must come."""
    async with asyncio.timeout(10):
        message = await stream.read()
    assert isinstance(message, StreamReinitResponse), await stream.code()
    return message.reinit


async def test_a_claim_reaches_the_held_stream_and_the_next_stream_ends_well(
    database: Database, channel: grpc.aio.Channel
) -> None:
    stage = await set_up(database, channel)
    claimed = await stage.claim(database)

    message = await reinit(stage.stream)

    assert (message.workspace_id, message.claim_id) == (str(claimed.workspace_id), str(claimed.claim_id))
    assert (message.generation, message.owner_name) == (1, "alice")
    assert message.reason == agent_pb2.REINIT_REASON_CLAIMED
    manifest = await stage.agent.become_ready()
    assert (manifest.generation, manifest.owner_id) == (1, message.owner_id)
    assert await claim_state(database, claimed.claim_id) == "acknowledged"
    assert await everything(stage.agent.stream()) == []
    # The first stream was sent nothing else, and ends because its incarnation has ended.
    assert await refused(stage.stream) == ABORTED


async def test_what_is_due_is_sent_at_the_next_stream_where_the_first_was_lost(
    database: Database, channel: grpc.aio.Channel
) -> None:
    stage = await set_up(database, channel)
    stage.stream.cancel()
    await stage.claim(database)

    assert (await reinit(stage.agent.stream())).generation == 1
    assert (await reinit(stage.agent.stream())).generation == 1


async def test_with_nats_away_the_check_delivers(database: Database, open_gateway: OpenGateway) -> None:
    async with (
        open_gateway(nats_url=SecretStr(AWAY)) as app,
        grpc.aio.insecure_channel(app.grpc) as channel,
    ):
        stage = await set_up(database, channel)
        await stage.claim(database)

        assert (await reinit(stage.stream)).generation == 1


async def test_an_event_delivers_long_before_the_check_and_carries_the_claims_trace(
    database: Database, open_gateway: OpenGateway, database_url: str, nats_url: str
) -> None:
    telling = Telling()
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(open_gateway(telling, check_interval="30s"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.grpc))
        events = await stack.enter_async_context(open_events(nats_url))
        trace_id = "0af7651916cd43dd8448eb211c80319c"
        traced = await stack.enter_async_context(
            open_database(database_url, pool_size=2, trace_context=lambda: f"00-{trace_id}-b7ad6b7169203331-01")
        )
        await stack.enter_async_context(open_relay(traced, events))
        stage = await set_up(database, channel)

        await stage.claim(traced)
        message = await reinit(stage.stream)

        assert message.traceparent.split("-")[1] == trace_id
        stage.agent.metadata.append(("traceparent", message.traceparent))
        await stage.agent.become_ready()
        acknowledging = [span for span in telling.spans.get_finished_spans() if span.name.endswith("/ReportState")]
        assert acknowledging[-1].context is not None
        assert format(acknowledging[-1].context.trace_id, "032x") == trace_id
        (point,) = telling.points("prebuilds_handover_duration_seconds")
        assert point.count == 1
        assert dict(point.attributes) == {"organization": "acme", "template": "python-dev", "preset": "small"}


async def test_a_prebuild_in_its_claim_build_is_held_until_the_handover_is_due(
    database: Database, channel: grpc.aio.Channel
) -> None:
    stage = await set_up(database, channel, ClaimStrategy.PROVISION)
    claimed = await stage.claim(database)
    # Restarted in the middle of it, it reports ready for the old owner: that acknowledges nothing.
    await stage.agent.become_ready()
    stream = stage.agent.stream()
    assert await refused(stage.stream) == ABORTED
    assert await claim_state(database, claimed.claim_id) == "building"

    await builders.end_build(database, await builders.job_of(database, claimed.build_id))

    assert (await reinit(stream)).generation == 1
    assert await claim_state(database, claimed.claim_id) == "handing_over"
    await stage.agent.become_ready()
    assert await claim_state(database, claimed.claim_id) == "acknowledged"


async def test_after_a_failed_claim_build_the_stream_is_held_until_the_agent_is_revoked(
    database: Database, channel: grpc.aio.Channel
) -> None:
    stage = await set_up(database, channel, ClaimStrategy.PROVISION)
    alice = await builders.make_user(database)
    claimed = await builders.claim_prebuild(database, stage.pool, alice)
    await builders.end_build(database, await builders.job_of(database, claimed.build_id), BuildOutcome.FAILED)
    stage.stream.cancel()
    stream = stage.agent.stream()

    await builders.queue(database, stage.prebuild.workspace_id, Transition.START, alice)

    assert await refused(stream) == REVOKED


async def test_a_stop_that_is_queued_before_the_acknowledgement_still_reinitialises(
    database: Database, channel: grpc.aio.Channel
) -> None:
    stage = await set_up(database, channel)
    alice = await builders.make_user(database)
    claimed = await builders.claim_prebuild(database, stage.pool, alice)
    stop = await builders.queue(database, stage.prebuild.workspace_id, Transition.STOP, alice)
    await builders.end_build(database, stop.job_id, BuildOutcome.FAILED)
    assert await claim_state(database, claimed.claim_id) == "superseded"

    assert (await reinit(stage.stream)).generation == 1
    assert (await stage.agent.become_ready()).owner_name == "alice"
    assert await everything(stage.agent.stream()) == []


async def test_what_never_was_a_prebuild_is_told_so(database: Database, channel: grpc.aio.Channel) -> None:
    pool = await make_pool(database)
    workspace = await builders.make_workspace(database, pool, await builders.make_user(database))
    agent = FakeAgent(channel, workspace.agent_id)
    assert (await agent.become_ready()).owner_name == "alice"

    assert await refused(agent.stream()) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_A_PREBUILD")


async def test_a_held_stream_is_stale_once_another_process_has_begun(
    database: Database, channel: grpc.aio.Channel
) -> None:
    stage = await set_up(database, channel)

    await FakeAgent(channel, stage.prebuild.agent_id).begin()

    assert await refused(stage.stream) == ABORTED
    assert await refused(stage.agent.stream()) == ABORTED
    assert await refused(stage.agent.report(agent_pb2.AGENT_STATE_OFF)) == ABORTED


async def test_an_incarnation_that_never_was_is_stale(database: Database, channel: grpc.aio.Channel) -> None:
    stage = await set_up(database, channel)

    assert await refused(stage.agent.stream(incarnation=7)) == ABORTED


@pytest.mark.parametrize("how", ["retired", "deleted", "old epoch"])
async def test_a_held_stream_ends_when_its_token_no_longer_counts(
    how: str, database: Database, channel: grpc.aio.Channel
) -> None:
    stage = await set_up(database, channel)
    async with database.transaction("test") as tx:
        match how:
            case "retired":
                await tx.execute(update(schema.Agent).values(retired=True))
            case "deleted":
                await tx.execute(update(schema.Workspace).values(deleted=True))
            case _:
                await tx.execute(update(schema.Agent).values(token_epoch=2, token_key_id=None))

    assert await refused(stage.stream) == REVOKED


async def test_a_later_stream_of_an_agent_replaces_the_earlier(database: Database, channel: grpc.aio.Channel) -> None:
    stage = await set_up(database, channel)
    later = stage.agent.stream(attempt=9)

    assert await refused(stage.stream) == REPLACED
    assert await refused(stage.agent.stream(attempt=3)) == REPLACED
    await stage.claim(database)
    assert (await reinit(later)).generation == 1


async def test_a_forged_stream_replaces_nothing(database: Database, channel: grpc.aio.Channel) -> None:
    stage = await set_up(database, channel)
    forger = FakeAgent(channel, stage.prebuild.agent_id, token=stage.agent.token[:-4] + "AAAA")

    code, reason = await refused(forger.stream(incarnation=1, attempt=9))

    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    await stage.claim(database)
    assert (await reinit(stage.stream)).generation == 1


async def test_an_impossible_state_is_internal_and_told_without_details(
    database: Database, channel: grpc.aio.Channel
) -> None:
    stage = await set_up(database, channel)
    await stage.claim(database)
    await reinit(stage.stream)
    await stage.agent.become_ready()
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Agent).values(generation=2))

    assert await refused(stage.agent.stream()) == (grpc.StatusCode.INTERNAL, "INTERNAL")


@pytest.mark.parametrize("number", [0, -1, 2**40])
async def test_bad_numbers_are_refused(number: int, database: Database, channel: grpc.aio.Channel) -> None:
    stage = await set_up(database, channel)

    assert await refused(stage.agent.stream(attempt=number or -5)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELDS",
    )


class NoConnections:
    """Writes nothing down."""

    gateway_id = GatewayId(builders.uuid4())

    def attach(self, connection: Connection) -> None: ...

    def leave(self, connection: Connection) -> None: ...


async def test_event_and_check_together_send_one_reinit(database: Database, channel: grpc.aio.Channel) -> None:
    stage = await set_up(database, channel)
    attaching = Attaching(database, KEYS, HeldStreams(), NoConnections(), Wakeups())
    reinits = attaching.reinits(
        Agent(stage.prebuild.agent_id, stage.agent.token), incarnation=stage.agent.incarnation, attempt=2
    )
    first = asyncio.ensure_future(anext(reinits))
    await asyncio.sleep(0)
    assert not await attaching.run_once()
    await stage.claim(database)

    sent = 0
    for _ in range(20):
        attaching.hint(stage.prebuild.workspace_id, "")
        await attaching.look_at_all()
        sent += (await attaching.run_once()).reinits

    assert sent == 1
    assert (await first).generation == 1
    await reinits.aclose()


async def test_a_hint_that_comes_while_a_new_stream_is_first_looked_at_is_not_lost(
    database: Database, channel: grpc.aio.Channel
) -> None:
    """Its workspace is not known yet, so the hint may be about it."""
    stage = await set_up(database, channel)
    attaching = Attaching(database, KEYS, HeldStreams(), NoConnections(), Wakeups())
    reinits = attaching.reinits(
        Agent(stage.prebuild.agent_id, stage.agent.token), incarnation=stage.agent.incarnation, attempt=2
    )
    first = asyncio.ensure_future(anext(reinits))
    await asyncio.sleep(0)
    batch = attaching._take()  # pyright: ignore[reportPrivateUsage] - a look begins
    assert len(batch) == 1
    await stage.claim(database)

    attaching.hint(stage.prebuild.workspace_id, "")

    assert (await attaching.run_once()).reinits == 1
    assert (await first).generation == 1
    await reinits.aclose()


async def test_a_look_that_fails_refuses_new_streams_and_keeps_held_ones(
    database: Database, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = await set_up(database, channel)
    attaching = Attaching(database, KEYS, HeldStreams(), NoConnections(), Wakeups())
    caller = Agent(stage.prebuild.agent_id, stage.agent.token)
    held = attaching.reinits(caller, incarnation=stage.agent.incarnation, attempt=2)
    first = asyncio.ensure_future(anext(held))
    await asyncio.sleep(0)
    await attaching.run_once()
    new = asyncio.ensure_future(anext(attaching.reinits(caller, incarnation=stage.agent.incarnation, attempt=3)))
    await asyncio.sleep(0)
    await attaching.look_at_all()

    async def away(*_: object, **__: object) -> None:
        raise Refusal(Reason.DEPENDENCY_UNAVAILABLE, "away")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "fetch_once", away)
        with pytest.raises(Refusal):
            await attaching.run_once()
    with pytest.raises(Refusal, match="away"):
        await new

    await stage.claim(database)
    assert (await attaching.run_once()).reinits == 1, "the held stream is looked at again"
    assert (await first).generation == 1
    await held.aclose()


async def test_held_streams_are_measured(database: Database, open_gateway: OpenGateway) -> None:
    telling = Telling()
    async with open_gateway(telling) as app, grpc.aio.insecure_channel(app.grpc) as channel:
        stage = await set_up(database, channel)
        assert [point.value for point in telling.points("prebuilds_agent_streams")] == [1]

        stage.stream.cancel()

        await eventually(lambda: [point.value for point in telling.points("prebuilds_agent_streams")] == [0])
