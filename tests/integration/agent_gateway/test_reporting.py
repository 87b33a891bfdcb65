"""ReportState: readiness, failure and acknowledgement."""

from __future__ import annotations

import asyncio
from typing import LiteralString

import grpc
import grpc.aio
import pytest

from prebuilds.agent_gateway.queries.handovers import Unacknowledged, count_unacknowledged
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import WorkspaceId
from prebuilds.store.database import Database
from prebuilds.v1 import agent_pb2
from tests.support import builders
from tests.support.builders import Built
from tests.support.gateway import FakeAgent, claim_state, connect, pool_row, refused
from tests.support.waiting import eventually

READY = agent_pb2.AGENT_STATE_READY
STARTING = agent_pb2.AGENT_STATE_STARTING
START_ERROR = agent_pb2.AGENT_STATE_START_ERROR
ROUNDS = 200
AT_ONCE = 50


async def test_a_state_only_moves_forward(database: Database, channel: grpc.aio.Channel) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    agent = FakeAgent(channel, (await builders.make_prebuild(database, pool)).agent_id)
    await agent.begin()

    assert await agent.report(READY) == READY
    assert await agent.report(STARTING) == READY
    assert await agent.report(START_ERROR, "too late") == READY
    assert await agent.report(agent_pb2.AGENT_STATE_OFF) == agent_pb2.AGENT_STATE_OFF
    assert await agent.report(agent_pb2.AGENT_STATE_SHUTTING_DOWN) == agent_pb2.AGENT_STATE_OFF


async def test_a_prebuild_is_ready_when_build_and_agents_are_whichever_comes_last(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database), agents=["main", "side"])
    prebuild = await builders.make_starting_prebuild(database, pool)
    main, side = (FakeAgent(channel, agent_id) for agent_id in prebuild.agents.values())

    await main.become_ready()
    assert not (await pool_row(database, prebuild)).is_ready
    await side.become_ready()
    assert not (await pool_row(database, prebuild)).is_ready
    await builders.end_build(database, prebuild.job_id, agents=["main", "side"])
    assert (await pool_row(database, prebuild)).is_ready

    await side.report(agent_pb2.AGENT_STATE_SHUTTING_DOWN)
    assert not (await pool_row(database, prebuild)).is_ready


@pytest.mark.parametrize("state", [START_ERROR, agent_pb2.AGENT_STATE_START_TIMEOUT])
@pytest.mark.parametrize("is_built_first", [True, False])
async def test_a_prebuild_whose_startup_fails_is_a_failed_build_by_its_templates_fault(
    state: agent_pb2.AgentState.ValueType, is_built_first: bool, database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_starting_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    await agent.begin()

    if is_built_first:
        await builders.end_build(database, prebuild.job_id, agents=["main"])
    await agent.report(state, "no such file")
    if not is_built_first:
        await builders.end_build(database, prebuild.job_id, agents=["main"])

    row = await pool_row(database, prebuild)
    assert (row.state, row.failure_class, row.is_ready) == ("failed", "template", False)
    assert await build(database, prebuild) == ("failed", "template", "main: no such file")
    assert await failures(database, prebuild) == [("failed", "template")]

    await agent.begin()
    await agent.report(READY)
    assert (await pool_row(database, prebuild)).state == "failed"


async def build(database: Database, prebuild: Built) -> tuple[str, str, str]:
    async with database.transaction("test") as tx:
        cursor = await tx.run(
            "SELECT outcome, failure_class, error FROM builds WHERE id = %(id)s", {"id": prebuild.build_id}
        )
        (row,) = await cursor.fetchall()
    return row


async def failures(database: Database, prebuild: Built) -> list[tuple[str, str]]:
    async with database.transaction("test") as tx:
        cursor = await tx.run(
            "SELECT kind, failure_class FROM pool_events WHERE workspace_id = %(id)s AND kind = 'failed'",
            {"id": prebuild.workspace_id},
        )
        return await cursor.fetchall()


async def test_a_startup_that_fails_for_the_new_owner_acknowledges_with_that_outcome(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(
        database, await builders.make_organization(database), strategy=ClaimStrategy.INSTANT
    )
    prebuild = await builders.make_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    await connect(database, agent, prebuild)
    claimed = await builders.claim_prebuild(database, pool, await builders.make_user(database))
    await agent.begin()
    await agent.report(STARTING)
    assert await claim_state(database, claimed.claim_id) == "handing_over"

    await agent.report(START_ERROR, "no such file")

    async with database.transaction("test") as tx:
        cursor = await tx.run("SELECT state, outcome, acknowledged_at IS NOT NULL FROM claims")
        assert await cursor.fetchall() == [("acknowledged", "start_error", True)]


async def test_a_late_report_for_the_old_owner_acknowledges_nothing(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(
        database, await builders.make_organization(database), strategy=ClaimStrategy.INSTANT
    )
    prebuild = await builders.make_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    await connect(database, agent, prebuild)
    claimed = await builders.claim_prebuild(database, pool, await builders.make_user(database))

    # The incarnation of before the claim: its report counts, and acknowledges nothing.
    await agent.report(agent_pb2.AGENT_STATE_SHUTTING_DOWN)

    assert await claim_state(database, claimed.claim_id) == "handing_over"


async def test_a_report_of_an_earlier_incarnation_is_stale(database: Database, channel: grpc.aio.Channel) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    await agent.begin()
    await FakeAgent(channel, prebuild.agent_id).begin()

    assert await refused(agent.report(READY)) == (grpc.StatusCode.ABORTED, "STALE_INCARNATION")


async def report_together(*agents: FakeAgent) -> None:
    """Begin, and report ready as nearly at once as can be."""
    await asyncio.gather(*(agent.begin() for agent in agents))
    await asyncio.gather(*(agent.report(READY) for agent in agents))


async def test_two_agents_that_are_ready_together_make_the_prebuild_ready_and_acknowledge_once(
    database: Database, channel: grpc.aio.Channel
) -> None:
    organization_id = await builders.make_organization(database)
    pool = await builders.make_pool(database, organization_id, agents=["main", "side"], strategy=ClaimStrategy.INSTANT)
    alice = await builders.make_user(database)
    for turn in range(ROUNDS // AT_ONCE):
        pairs: dict[WorkspaceId, list[FakeAgent]] = {}
        for _ in range(AT_ONCE):
            prebuild = await builders.make_prebuild(database, pool)
            pairs[prebuild.workspace_id] = [FakeAgent(channel, agent_id) for agent_id in prebuild.agents.values()]

        await asyncio.gather(*(report_together(*pair) for pair in pairs.values()))
        assert await one_value(database, "SELECT count(*) FROM prebuilds WHERE ready_at IS NULL") == 0
        for pair in pairs.values():
            for agent in pair:
                agent.stream()

        async def are_eligible() -> bool:
            return await one_value(database, "SELECT count(*) FROM prebuilds WHERE gateways IS NULL") == 0

        await eventually(are_eligible)
        for number in range(AT_ONCE):
            await builders.claim_prebuild(database, pool, alice, name=f"mine-{turn}-{number}")
        await asyncio.gather(*(report_together(*pair) for pair in pairs.values()))
        assert await one_value(database, "SELECT count(*) FROM claims WHERE state <> 'acknowledged'") == 0
        for pair in pairs.values():
            for agent in pair:
                agent.held[0].cancel()
    assert await one_value(database, "SELECT count(*) FROM claims WHERE outcome = 'ready'") == ROUNDS


async def one_value(database: Database, query: LiteralString) -> int | None:
    async with database.transaction("test") as tx:
        return await tx.fetch_one(query, row=int)


async def test_a_handover_unacknowledged_for_more_than_a_minute_is_measured(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(
        database, await builders.make_organization(database), strategy=ClaimStrategy.INSTANT
    )
    prebuild = await builders.make_prebuild(database, pool)
    await connect(database, FakeAgent(channel, prebuild.agent_id), prebuild)
    await builders.claim_prebuild(database, pool, await builders.make_user(database))
    assert await count_unacknowledged(database) == []

    async with database.transaction("test") as tx:
        await tx.run("UPDATE claims SET handed_over_at = now() - interval '61 s'")

    assert await count_unacknowledged(database) == [Unacknowledged("acme", "python-dev", "small", 1)]
