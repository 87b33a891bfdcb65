"""Claiming: what is taken, what it becomes, and that it is taken once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import psycopg
import pytest

from prebuilds.claims import claiming
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import SYSTEM_USER_ID, OrganizationId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind, PrebuildState
from prebuilds.domain.refusals import Reason
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import claim_pb2, workspace_pb2
from tests.support.claims import (
    ClaimsService,
    change,
    change_prebuild,
    make_sized_pool,
    pooled,
    ready_prebuilds,
    refuses,
    rows,
)
from tests.support.waiting import until_waiting

HIT = claim_pb2.CREATION_OUTCOME_HIT
MISS = claim_pb2.CREATION_OUTCOME_MISS
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def test_a_claim_hands_a_prebuild_to_the_person(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    alice = await claims_service.person("alice")

    answer = await alice.create(preset="small", name="mine", parameters={"dotfiles": "git@me"})

    assert answer.outcome == HIT
    assert answer.workspace.id == str(prebuild)
    assert (answer.workspace.name, answer.workspace.owner_name) == ("mine", "alice")
    assert answer.workspace.status == workspace_pb2.WORKSPACE_STATUS_PENDING
    assert not answer.workspace.ready
    assert answer.build == answer.workspace.latest_build
    assert answer.build.reason == workspace_pb2.BUILD_REASON_CLAIM
    assert answer.build.initiator_name == "alice"
    assert (answer.build.number, answer.build.generation) == (2, 1)
    assert dict(answer.build.parameters) == {"size": "small", "region": "eu", "dotfiles": "git@me", "cpus": "2"}
    assert answer.claim.state == claim_pb2.CLAIM_STATE_BUILDING
    assert (answer.claim.generation, answer.claim.owner_name, answer.claim.preset_name) == (1, "alice", "small")
    assert not answer.workspace.HasField("prebuild")
    assert await pooled(database, pool) == 0


async def test_a_claim_writes_all_its_records(claims_service: ClaimsService, database: Database, pool: PoolKey) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)

    answer = await (await claims_service.person()).create(preset="small", name="mine")

    (job,) = await rows(database, schema.Job, build_id=UUID(answer.build.id))
    assert (job.status, job.priority, job.tags) == ("pending", 0, {"host": "host-1"})
    (event,) = await rows(database, schema.PoolEvent, kind=PoolEventKind.CLAIMED)
    assert (event.workspace_id, event.preset_name) == (prebuild, "small")
    (deed,) = await rows(database, schema.AuditEvent)
    assert (deed.action, deed.resource_name, deed.principal_name) == ("workspace.claim", "mine", "alice")
    (workspace,) = await rows(database, schema.Workspace, id=prebuild)
    assert (workspace.claim_generation, workspace.handover_generation) == (1, 0)
    assert workspace.claimed_at == workspace.last_used_at > workspace.created_at


async def test_an_instant_claim_needs_no_job_and_is_handing_over_at_once(
    claims_service: ClaimsService, database: Database, acme: OrganizationId
) -> None:
    pool = await make_sized_pool(database, acme, strategy=ClaimStrategy.INSTANT)
    await ready_prebuilds(database, pool)

    answer = await (await claims_service.person()).create(preset="small")

    assert answer.build.job_id == ""
    assert answer.build.status == workspace_pb2.BUILD_STATUS_SUCCEEDED
    assert answer.claim.state == claim_pb2.CLAIM_STATE_HANDING_OVER
    assert answer.workspace.handover_generation == answer.workspace.claim_generation == 1
    assert not answer.workspace.ready


async def test_what_expires_soonest_is_claimed_first_then_what_was_ready_first(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    never_1, never_2, late, soon = await ready_prebuilds(database, pool, 4)
    await change_prebuild(database, late, expires_at=datetime.now(UTC) + timedelta(hours=2))
    await change_prebuild(database, soon, expires_at=datetime.now(UTC) + timedelta(hours=1))
    alice = await claims_service.person()

    taken = [(await alice.create(preset="small")).workspace.id for _ in range(4)]

    assert taken == [str(each) for each in (soon, late, never_1, never_2)]


INELIGIBLE: dict[str, Callable[[Database, PoolKey, WorkspaceId], Awaitable[object]]] = {
    "marked": lambda database, _, prebuild: change_prebuild(database, prebuild, delete_marked_at=LONG_AGO),
    "expired": lambda database, _, prebuild: change_prebuild(database, prebuild, expires_at=LONG_AGO),
    "unconnected": lambda database, _, prebuild: change_prebuild(
        database, prebuild, gateways=None, disconnected_at=LONG_AGO
    ),
    "connected to a gateway that is gone": lambda database, _, __: _age_gateways(database),
    "unready": lambda database, _, prebuild: change_prebuild(database, prebuild, ready_at=None),
    "stopped": lambda database, _, prebuild: change_prebuild(database, prebuild, state=PrebuildState.STOPPED),
    "failed": lambda database, _, prebuild: change_prebuild(database, prebuild, state=PrebuildState.FAILED),
    "invalidated": lambda database, pool, _: change(
        database, schema.Preset, pool.preset_id, last_invalidated_at=datetime.now(UTC) + timedelta(hours=1)
    ),
}


async def _age_gateways(database: Database) -> None:
    async with database.transaction("test") as tx:
        await tx.run(b"UPDATE gateways SET seen_at = now() - interval '61 s'")


@pytest.mark.parametrize("how", INELIGIBLE)
async def test_an_ineligible_prebuild_is_never_claimed(
    how: str, claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    await INELIGIBLE[how](database, pool, prebuild)

    answer = await (await claims_service.person()).create(preset="small")

    assert answer.outcome == MISS
    assert answer.workspace.id != str(prebuild)
    (workspace,) = await rows(database, schema.Workspace, id=prebuild)
    assert workspace.owner_id == SYSTEM_USER_ID


async def test_a_prebuild_of_an_inactive_version_is_never_claimed(
    claims_service: ClaimsService, database: Database, acme: OrganizationId, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)
    other = await make_sized_pool(database, acme, template="other")
    await change(database, schema.Template, pool.template_id, active_version_id=other.version_id)

    answer = await (await claims_service.person()).create(preset="small")

    assert answer.outcome == MISS
    assert await pooled(database, pool) == 1


async def test_many_claimers_get_exactly_what_there_is(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    prebuilds = await ready_prebuilds(database, pool, 8)
    people = [await claims_service.person(f"person-{number}") for number in range(20)]

    answers = await asyncio.gather(*(person.create(preset="small", name="mine") for person in people))

    hits = [answer.workspace.id for answer in answers if answer.outcome == HIT]
    assert sorted(hits) == sorted(str(prebuild) for prebuild in prebuilds)
    assert sum(answer.outcome == MISS for answer in answers) == 12
    assert len({answer.workspace.id for answer in answers}) == 20
    assert len(await rows(database, schema.Claim)) == 8


async def test_a_prebuild_that_others_hold_for_long_is_waited_for(
    claims_service: ClaimsService, database: Database, database_url: str, pool: PoolKey
) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    alice = await claims_service.person()
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
    ):
        await holder.execute("SELECT FROM prebuilds FOR UPDATE")
        creating = asyncio.create_task(alice.create(preset="small"))
        await until_waiting(observer)
        await holder.rollback()
        answer = await creating

    assert answer.outcome == HIT
    assert answer.workspace.id == str(prebuild)


async def test_a_locked_prebuild_is_passed_over(
    claims_service: ClaimsService, database: Database, database_url: str, pool: PoolKey
) -> None:
    first, second = await ready_prebuilds(database, pool, 2)
    alice = await claims_service.person()
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute("SELECT FROM prebuilds WHERE workspace_id = %s FOR UPDATE", [first])
        answer = await alice.create(preset="small")

    assert answer.workspace.id == str(second)


async def test_a_failure_after_the_claim_statement_puts_the_prebuild_back(
    claims_service: ClaimsService, database: Database, pool: PoolKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready_prebuilds(database, pool)
    alice = await claims_service.person()

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret of the inside")

    with monkeypatch.context() as patch:
        patch.setattr(claiming, "read_workspaces", broken)
        with refuses(Reason.INTERNAL) as refused:
            await alice.create(preset="small", request_id="one")

    assert refused.refused is not None
    assert "secret" not in refused.refused.message
    assert await pooled(database, pool) == 1
    assert await rows(database, schema.Claim) == []
    assert (await alice.create(preset="small", request_id="one")).outcome == HIT


async def test_a_name_that_is_taken_is_refused_and_takes_nothing(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool, 2)
    alice, bob = await claims_service.person("alice"), await claims_service.person("bob")
    await alice.create(preset="small", name="mine")

    with refuses(Reason.NAME_TAKEN) as refused:
        await alice.create(preset="small", name="mine")

    assert refused.code == grpc.StatusCode.ALREADY_EXISTS
    assert await pooled(database, pool) == 1
    assert (await bob.create(preset="small", name="mine")).outcome == HIT


async def test_lifecycle_comes_from_the_template_unless_the_request_says_otherwise(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool, 3)
    await change(database, schema.Template, pool.template_id, default_ttl=timedelta(hours=8), autostart="0 8 * * 1-5")
    alice = await claims_service.person()

    usual = (await alice.create(preset="small")).workspace
    other = (await alice.create(preset="small", ttl=timedelta(hours=1), autostart_schedule="")).workspace
    never = (await alice.create(preset="small", ttl=timedelta(0))).workspace

    assert usual.ttl.ToTimedelta() == timedelta(hours=8)
    assert usual.autostart_schedule == "0 8 * * 1-5"
    assert usual.deadline.ToDatetime() - usual.claim_time.ToDatetime() == timedelta(hours=8)
    assert (other.ttl.ToTimedelta(), other.autostart_schedule) == (timedelta(hours=1), "")
    assert not never.HasField("ttl")
    assert not never.HasField("deadline")
