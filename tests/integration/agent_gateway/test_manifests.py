"""GetManifest: incarnations, and whose manifest an agent gets when."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from sqlalchemy import update

from prebuilds.chassis.process import App
from prebuilds.domain.builds import BuildOutcome, Transition
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import SYSTEM_USER_ID, AgentId
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.v1 import agent_pb2
from tests.support import builders
from tests.support.gateway import FakeAgent, OpenGateway, Telling, claim_state, connect, is_ready, refused


async def test_an_agent_of_a_prebuild_gets_the_system_users_manifest(
    database: Database, channel: grpc.aio.Channel
) -> None:
    organization_id = await builders.make_organization(database)
    prebuild = await builders.make_prebuild(database, await builders.make_pool(database, organization_id))

    manifest = await FakeAgent(channel, prebuild.agent_id).begin()

    assert (manifest.incarnation, manifest.generation) == (1, 0)
    assert manifest.is_prebuild
    assert manifest.owner_id == str(SYSTEM_USER_ID)
    assert manifest.organization_id == str(organization_id)
    assert manifest.workspace_id == str(prebuild.workspace_id)
    assert manifest.workspace_name.startswith("prebuild-")
    assert (manifest.agent_id, manifest.agent_name) == (str(prebuild.agent_id), "main")
    assert manifest.template_name == "python-dev"
    assert dict(manifest.parameters) == {"size": "small"}
    assert dict(manifest.env) == {"EDITOR": "vi"}
    assert [script.path for script in manifest.startup_scripts] == ["./startup.sh"]


async def test_a_lost_answer_is_given_again_and_begins_nothing(database: Database, channel: grpc.aio.Channel) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    agent = FakeAgent(channel, (await builders.make_prebuild(database, pool)).agent_id)
    first = await agent.begin()
    await agent.report(agent_pb2.AGENT_STATE_STARTING)

    assert await agent.ask() == first

    assert await agent.report(agent_pb2.AGENT_STATE_STARTING) == agent_pb2.AGENT_STATE_STARTING


async def test_a_lost_answer_is_the_same_although_the_handover_is_due_since(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(
        database, await builders.make_organization(database), strategy=ClaimStrategy.INSTANT
    )
    prebuild = await builders.make_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    await connect(database, agent, prebuild)
    first = await agent.ask()
    await builders.claim_prebuild(database, pool, await builders.make_user(database))

    assert await agent.ask() == first

    second = await agent.begin()
    assert (second.incarnation, second.generation, second.owner_name) == (2, 1, "alice")


async def test_each_beginning_and_each_process_is_an_incarnation(database: Database, channel: grpc.aio.Channel) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    agent_id = (await builders.make_prebuild(database, pool)).agent_id
    one, other = FakeAgent(channel, agent_id), FakeAgent(channel, agent_id)

    assert [(await agent.begin()).incarnation for agent in (one, one, other, one)] == [1, 2, 3, 4]


async def test_a_late_request_of_an_earlier_beginning_is_stale(database: Database, channel: grpc.aio.Channel) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    agent = FakeAgent(channel, (await builders.make_prebuild(database, pool)).agent_id)
    await agent.begin()
    await agent.begin()

    assert await refused(agent.ask(entry=1)) == (grpc.StatusCode.ABORTED, "STALE_INCARNATION")

    assert (await agent.ask()).incarnation == 2


async def test_the_same_beginning_asked_many_times_at_once_is_one_incarnation(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    agent = FakeAgent(channel, (await builders.make_prebuild(database, pool)).agent_id)

    manifests = await asyncio.gather(*(agent.ask(entry=1) for _ in range(20)))

    assert {manifest.incarnation for manifest in manifests} == {1}


async def test_a_process_that_takes_the_agent_back_is_counted_as_alternating(
    database: Database, open_gateway: OpenGateway
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    agent_id = (await builders.make_prebuild(database, pool)).agent_id
    telling = Telling()
    async with open_gateway(telling) as app, grpc.aio.insecure_channel(app.grpc) as channel:
        one, other = FakeAgent(channel, agent_id), FakeAgent(channel, agent_id)
        await one.begin()
        await other.begin()
        assert not telling.points("prebuilds_incarnation_alternations_total")

        await one.begin()

        assert [point.value for point in telling.points("prebuilds_incarnation_alternations_total")] == [1]


async def test_an_agent_that_restarts_is_not_ready_until_it_says_so(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    await connect(database, FakeAgent(channel, prebuild.agent_id), prebuild)
    assert await is_ready(database, prebuild) == (True, True)

    again = FakeAgent(channel, prebuild.agent_id)
    await again.begin()
    assert await is_ready(database, prebuild) == (False, False)

    await again.report(agent_pb2.AGENT_STATE_READY)
    assert await is_ready(database, prebuild) == (True, False)


async def test_while_the_claim_build_runs_a_restarted_agent_gets_the_old_owners_manifest(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    await connect(database, FakeAgent(channel, prebuild.agent_id), prebuild)
    claimed = await builders.claim_prebuild(database, pool, await builders.make_user(database))

    again = FakeAgent(channel, prebuild.agent_id)
    manifest = await again.become_ready()
    assert (manifest.generation, manifest.is_prebuild) == (0, True)
    assert await claim_state(database, claimed.claim_id) == "building"

    await builders.end_build(database, await builders.job_of(database, claimed.build_id))
    manifest = await again.begin()
    assert (manifest.generation, manifest.owner_name, manifest.workspace_name) == (1, "alice", "mine")
    assert not manifest.is_prebuild


async def test_after_a_failed_claim_build_a_persons_start_brings_the_persons_manifest(
    database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    await connect(database, agent, prebuild)
    alice = await builders.make_user(database)
    claimed = await builders.claim_prebuild(database, pool, alice)
    await builders.end_build(database, await builders.job_of(database, claimed.build_id), BuildOutcome.FAILED)
    assert (await agent.begin()).generation == 0

    await builders.queue(database, prebuild.workspace_id, Transition.START, alice)

    assert await refused(agent.begin()) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REVOKED")
    manifest = await FakeAgent(channel, prebuild.agent_id, epoch=2).begin()
    assert (manifest.generation, manifest.owner_name) == (1, "alice")


@pytest.mark.parametrize("how", ["retired", "deleted", "old epoch", "forged", "no such agent", "keyless"])
async def test_a_token_that_does_not_count_is_unauthenticated(
    how: str, database: Database, channel: grpc.aio.Channel
) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    prebuild = await builders.make_prebuild(database, pool)
    agent = FakeAgent(channel, prebuild.agent_id)
    await agent.become_ready()
    expected = "TOKEN_REVOKED"
    async with database.transaction("test") as tx:
        match how:
            case "retired":
                await tx.execute(update(schema.Agent).values(retired=True))
            case "deleted":
                await tx.execute(update(schema.Workspace).values(deleted=True))
            case "old epoch":
                await tx.execute(update(schema.Agent).values(token_epoch=2))
            case _:
                expected = "CREDENTIALS_INVALID"
    if how == "forged":
        forged = agent.token[:-4] + "AAAA"
        agent.metadata[:] = [("authorization", f"Bearer {forged}")]
    elif how == "no such agent":
        agent.metadata[:] = FakeAgent(channel, AgentId(prebuild.workspace_id)).metadata
    elif how == "keyless":
        async with database.transaction("test") as tx:
            await tx.execute(update(schema.Agent).values(token_key_id=None))

    unauthenticated = (grpc.StatusCode.UNAUTHENTICATED, expected)
    assert await refused(agent.begin()) == unauthenticated
    assert await refused(agent.report(agent_pb2.AGENT_STATE_OFF)) == unauthenticated
    assert await refused(agent.stream()) == unauthenticated

    agent.process, agent.incarnation = "no process", -1
    assert await refused(agent.ask(entry=-1)) == unauthenticated
    assert await refused(agent.report(agent_pb2.AGENT_STATE_CREATED)) == unauthenticated
    assert await refused(agent.stream(attempt=-1)) == unauthenticated


async def test_who_has_a_token_is_told_what_is_wrong(database: Database, channel: grpc.aio.Channel) -> None:
    pool = await builders.make_pool(database, await builders.make_organization(database))
    agent = FakeAgent(channel, (await builders.make_prebuild(database, pool)).agent_id)

    agent.process, agent.incarnation = "no process", -1

    invalid = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert await refused(agent.ask(entry=-1)) == invalid
    assert await refused(agent.report(agent_pb2.AGENT_STATE_CREATED)) == invalid
    assert await refused(agent.stream(attempt=-1)) == invalid


async def test_nobody_but_agents_gets_in(gateway: App, channel: grpc.aio.Channel) -> None:
    nobody = FakeAgent(channel, AgentId(uuid4()))
    for metadata in ([], [("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")]):
        nobody.metadata[:] = metadata
        code, _ = await refused(nobody.begin())
        assert code is grpc.StatusCode.UNAUTHENTICATED
