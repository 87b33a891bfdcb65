"""Pausing reconciliation and resuming it, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias
from uuid import UUID, uuid4

import grpc
import grpc.aio
import psycopg
import pytest
from sqlalchemy import select

from prebuilds.domain.ids import PresetId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.reconciler.queries.pools import lock_preset
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.v1 import pool_pb2, template_service_pb2
from prebuilds.v1 import pool_service_pb2 as pb
from tests.support.builders import claim_prebuild, make_user
from tests.support.reconciling import Client, Reconcilers, Stage, make_manifest, refused
from tests.support.templates import pool_key
from tests.support.waiting import eventually, until_waiting

Scope: TypeAlias = pool_pb2.PauseScope.ValueType

DEPLOYMENT = pool_pb2.PAUSE_SCOPE_DEPLOYMENT
TEMPLATE = pool_pb2.PAUSE_SCOPE_TEMPLATE
PRESET = pool_pb2.PAUSE_SCOPE_PRESET


async def pause(client: Client, scope: Scope, target_id: str = "", message: str = "") -> pool_pb2.Pause:
    request = pb.PauseReconciliationRequest(scope=scope, target_id=target_id, message=message)
    return (await client.pools.PauseReconciliation(request, metadata=client.metadata)).pause


async def resume(client: Client, scope: Scope, target_id: str = "") -> pb.ResumeReconciliationResponse:
    request = pb.ResumeReconciliationRequest(scope=scope, target_id=target_id)
    return await client.pools.ResumeReconciliation(request, metadata=client.metadata)


def pauses_of(pool: pool_pb2.Pool) -> list[pool_pb2.Pause]:
    return [block.pause for block in pool.blocked_by if block.kind == pool_pb2.BLOCK_KIND_PAUSED]


async def deeds(database: Database) -> Sequence[tuple[str, str, str]]:
    log = schema.AuditEvent
    statement = select(log.action, log.resource, log.resource_name).order_by(log.id)
    async with database.transaction("test") as tx:
        rows = await tx.execute(statement.where(log.action.regexp_match(r"\.(pause|resume)$")))
        return [(action, resource, name) for action, resource, name in rows]


@pytest.mark.parametrize("scope", [DEPLOYMENT, TEMPLATE, PRESET])
async def test_no_pass_touches_what_is_paused_until_it_is_resumed(
    operator: Client, stage: Stage, database: Database, scope: Scope
) -> None:
    pushed = await operator.push(make_manifest(instances=1))
    preset = pushed.presets[0]
    target_id = {DEPLOYMENT: "", TEMPLATE: pushed.template.id, PRESET: preset.id}[scope]
    await eventually(lambda: stage.jobs(preset.id))
    await stage.make_eligible(preset.id)

    made = await pause(operator, scope, target_id, "the registry is down")
    await claim_prebuild(database, pool_key(preset), await make_user(database))
    statistics = await operator.reconcile()

    assert (made.scope, made.target_id, made.message, made.creator_name) == (
        scope,
        target_id,
        "the registry is down",
        "root",
    )
    assert (statistics.presets_paused, statistics.created) == (1, 0)
    pool = await operator.pool(preset.id)
    assert pauses_of(pool) == [made]
    assert [block.since_time for block in pool.blocked_by] == [made.create_time]
    assert not pool.plan
    ended = await resume(operator, scope, target_id)
    assert ended.ended_pause == made
    await eventually(lambda: stage.jobs(preset.id), what="refilled by the event, without a tick")
    assert not pauses_of(await operator.pool(preset.id))


async def test_pausing_what_is_paused_changes_nothing(operator: Client, database: Database) -> None:
    pushed = await operator.push()
    first = await pause(operator, TEMPLATE, pushed.template.id, "first")
    again = await pause(operator, TEMPLATE, pushed.template.id, "second")

    assert again == first
    assert (await resume(operator, TEMPLATE, pushed.template.id)).ended_pause == first
    assert not (await resume(operator, TEMPLATE, pushed.template.id)).HasField("ended_pause")
    assert await deeds(database) == [
        ("template.pause", "template", "python-dev"),
        ("template.resume", "template", "python-dev"),
    ]


async def test_two_who_pause_the_deployment_at_once_make_one_pause(operator: Client, database: Database) -> None:
    made = await asyncio.gather(*(pause(operator, DEPLOYMENT, message=str(number)) for number in range(6)))

    assert len({each.message for each in made}) == 1
    assert await deeds(database) == [("deployment.pause", "deployment", "deployment")]


async def test_every_pause_that_reaches_a_pool_is_shown_and_ends_by_itself(operator: Client) -> None:
    pushed = await operator.push()
    preset = pushed.presets[0]
    for scope, target_id in ((PRESET, preset.id), (DEPLOYMENT, ""), (TEMPLATE, pushed.template.id)):
        await pause(operator, scope, target_id)

    assert [each.scope for each in pauses_of(await operator.pool(preset.id))] == [DEPLOYMENT, TEMPLATE, PRESET]
    await resume(operator, TEMPLATE, pushed.template.id)
    assert [each.scope for each in pauses_of(await operator.pool(preset.id))] == [DEPLOYMENT, PRESET]


async def test_a_pause_reaches_no_other_pool(operator: Client) -> None:
    paused = await operator.push(make_manifest("a"))
    other = await operator.push(make_manifest("b"))
    await pause(operator, TEMPLATE, paused.template.id)

    listing = pb.ListPoolsRequest(organization="acme", filter="blocked=true")
    blocked = (await operator.pools.ListPools(listing, metadata=operator.metadata)).pools

    assert [pool.id for pool in blocked] == [paused.presets[0].id]
    assert not (await operator.pool(other.presets[0].id)).blocked_by


async def test_a_pause_survives_a_restart(reconcilers: Reconcilers, stage: Stage) -> None:
    client = await reconcilers.client(await reconcilers.start())
    await client.make_organization()
    await pause(client, DEPLOYMENT, message="maintenance")

    other = await reconcilers.client(await reconcilers.start())
    preset = (await other.push()).presets[0]

    assert (await other.reconcile()).presets_paused == 1
    assert await stage.states(preset.id) == []
    assert [each.message for each in pauses_of(await other.pool(preset.id))] == ["maintenance"]


async def test_a_preset_is_paused_after_the_pass_that_works_on_it(
    operator: Client, database: Database, database_url: str
) -> None:
    preset = (await operator.push()).presets[0]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer:
        async with database.transaction("a pass") as tx:
            await eventually(lambda: lock_preset(tx, PresetId(UUID(preset.id))))
            pausing = asyncio.create_task(pause(operator, PRESET, preset.id))
            await until_waiting(observer)
        assert (await pausing).target_id == preset.id


async def test_who_cannot_wait_for_the_pass_pauses_nothing(operator: Client, database: Database) -> None:
    preset = (await operator.push()).presets[0]
    request = pb.PauseReconciliationRequest(scope=PRESET, target_id=preset.id)
    async with database.transaction("a pass") as tx:
        await eventually(lambda: lock_preset(tx, PresetId(UUID(preset.id))))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await operator.pools.PauseReconciliation(request, metadata=operator.metadata, timeout=0.2)

    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # Whoever would have paused after all stood first in the line for the lock.
    assert not (await resume(operator, PRESET, preset.id)).HasField("ended_pause")
    assert await deeds(database) == []


async def test_only_operators_pause_the_deployment(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    await operator.make_organization()
    await pause(operator, DEPLOYMENT)
    owner = await reconcilers.client(address, operator=False, name="olga", roles=[Role.OWNER])

    with refused(Reason.PERMISSION_DENIED):
        await pause(owner, DEPLOYMENT)
    with refused(Reason.PERMISSION_DENIED):
        await resume(owner, DEPLOYMENT)


async def test_members_pause_nothing_and_others_find_nothing(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    await operator.make_organization()
    await operator.make_organization("other")
    pushed = await operator.push()
    member = await reconcilers.client(address, operator=False, name="mia", roles=[Role.MEMBER])
    stranger = await reconcilers.client(address, operator=False, name="sam", roles=[Role.OWNER], at="other")
    admin = await reconcilers.client(address, operator=False, name="ada", roles=[Role.TEMPLATE_ADMIN])

    for scope, target_id in ((TEMPLATE, pushed.template.id), (PRESET, pushed.presets[0].id)):
        with refused(Reason.PERMISSION_DENIED):
            await pause(member, scope, target_id)
        with refused(Reason.NOT_FOUND):
            await pause(stranger, scope, target_id)
        with refused(Reason.NOT_FOUND):
            await resume(stranger, scope, target_id)
        with refused(Reason.NOT_FOUND):
            await pause(operator, scope, str(uuid4()))
        assert (await pause(admin, scope, target_id)).creator_name == "ada"


async def test_all_that_is_wrong_with_a_pause_is_told_at_once(operator: Client) -> None:
    long = "x" * 201
    for scope, target_id, message, fields in (
        (pool_pb2.PAUSE_SCOPE_UNSPECIFIED, "", long, ["scope", "message"]),
        (TEMPLATE, "", long, ["target_id", "message"]),
        (PRESET, "no id", "", ["target_id"]),
        (DEPLOYMENT, str(uuid4()), long, ["target_id", "message"]),
        (99, "", "", ["scope"]),
    ):
        with refused(Reason.INVALID_FIELDS) as caught:
            await pause(operator, scope, target_id, message)  # pyright: ignore[reportArgumentType] - 99 is of tomorrow
        assert [violation.field for violation in caught[0].violations] == fields


async def test_what_drains_is_paused_as_well(operator: Client, stage: Stage) -> None:
    pushed = await operator.push(make_manifest(instances=1))
    preset = pushed.presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    await stage.make_eligible(preset.id)
    await pause(operator, TEMPLATE, pushed.template.id)
    request = template_service_pb2.DeprecateTemplateRequest(id=pushed.template.id, message="use go-dev")
    await operator.templates.DeprecateTemplate(request, metadata=operator.metadata)

    assert (await operator.reconcile()).presets_paused == 1
    assert await stage.states(preset.id) == ["running"]
    await resume(operator, TEMPLATE, pushed.template.id)
    await stage.until_states(preset.id, "deleting")


async def test_a_paused_template_that_is_deleted_drains(operator: Client, stage: Stage, database: Database) -> None:
    pushed = await operator.push(make_manifest(instances=1))
    preset = pushed.presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    await stage.make_eligible(preset.id)
    paused = [
        await pause(operator, scope, target_id)
        for scope, target_id in ((TEMPLATE, pushed.template.id), (PRESET, preset.id))
    ]
    other = (await operator.push(make_manifest("other"))).template
    await pause(operator, TEMPLATE, other.id)

    request = template_service_pb2.DeleteTemplateRequest(id=pushed.template.id)
    await operator.templates.DeleteTemplate(request, metadata=operator.metadata)

    await stage.until_states(preset.id, "deleting")
    assert not pauses_of(await operator.pool(preset.id))
    assert (await resume(operator, TEMPLATE, other.id)).HasField("ended_pause"), "another template's stays"
    log = schema.AuditEvent
    async with database.read("test") as tx:
        details = await tx.scalar(select(log.details).where(log.action == "template.delete"))
    assert [(each["scope"], each["id"], each["paused_by"]) for each in (details or {})["ended_pauses"]] == [
        ("template" if each.scope == TEMPLATE else "preset", each.target_id, "root") for each in paused
    ]
