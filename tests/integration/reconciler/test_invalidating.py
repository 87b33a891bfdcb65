"""Invalidating presets, over gRPC and against claims."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

import psycopg
from sqlalchemy import select

from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.claiming import NothingEligible, claim
from prebuilds.v1 import admin_pb2, pool_pb2, template_pb2, template_service_pb2
from prebuilds.v1 import pool_service_pb2 as pb
from tests.support.builders import claim_prebuild, make_claim_order, make_user
from tests.support.reconciling import Client, Reconcilers, Stage, make_manifest, refused
from tests.support.templates import pool_key
from tests.support.waiting import eventually, until_waiting

TWO = make_manifest(
    presets=[{"name": name, "parameters": {"size": name}, "prebuilds": {"instances": 1}} for name in ("small", "large")]
)


async def invalidate(
    client: Client, presets: Sequence[str] = (), *, template: str = "python-dev", validate_only: bool = False
) -> pb.InvalidatePresetsResponse:
    request = pb.InvalidatePresetsRequest(
        organization="acme", template=template, presets=presets, validate_only=validate_only
    )
    return await client.pools.InvalidatePresets(request, metadata=client.metadata)


async def filled(client: Client, stage: Stage) -> dict[str, template_pb2.Preset]:
    """Two presets with an eligible prebuild each, by name."""
    presets = {preset.name: preset for preset in (await client.push(TWO)).presets}
    for preset in presets.values():
        await eventually(lambda id_=preset.id: stage.jobs(id_))
        await stage.make_eligible(preset.id)
    return presets


async def test_invalidated_prebuilds_are_replaced_in_one_pass(operator: Client, stage: Stage) -> None:
    presets = await filled(operator, stage)

    answer = await invalidate(operator, ["small"])

    assert list(answer.preset_ids) == [presets["small"].id]
    assert answer.prebuild_count == 1
    assert answer.HasField("invalidate_time")
    await stage.until_states(presets["small"].id, "deleting", "starting")
    assert await stage.states(presets["large"].id) == ["running"]


async def test_without_names_all_of_the_active_version_are_invalidated(operator: Client, stage: Stage) -> None:
    presets = await filled(operator, stage)

    answer = await invalidate(operator)

    assert set(answer.preset_ids) == {preset.id for preset in presets.values()}
    assert answer.prebuild_count == 2


async def test_to_validate_counts_and_changes_nothing(operator: Client, stage: Stage) -> None:
    presets = await filled(operator, stage)

    answer = await invalidate(operator, [presets["small"].id, "large", "small"], validate_only=True)
    await operator.reconcile()

    assert (len(answer.preset_ids), answer.prebuild_count) == (2, 2)
    assert not answer.HasField("invalidate_time")
    assert [await stage.states(preset.id) for preset in presets.values()] == [["running"], ["running"]]


async def test_what_is_expired_is_not_counted_again(operator: Client, stage: Stage) -> None:
    await filled(operator, stage)
    await pause_everything(operator)

    assert (await invalidate(operator)).prebuild_count == 2
    assert (await invalidate(operator)).prebuild_count == 0


async def test_a_claim_that_begins_afterwards_takes_none(operator: Client, stage: Stage, database: Database) -> None:
    preset = (await filled(operator, stage))["small"]
    await pause_everything(operator)
    order = make_claim_order(pool_key(preset), await make_user(database))

    await invalidate(operator, ["small"])

    async with database.transaction("test") as tx:
        assert await claim(tx, order, wait_for_locks=True) == NothingEligible()


async def test_a_claim_that_runs_meanwhile_keeps_what_it_took(
    operator: Client, stage: Stage, database: Database, database_url: str
) -> None:
    preset = (await filled(operator, stage))["small"]
    pool = pool_key(preset)
    user_id = await make_user(database)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer:
        async with database.transaction("a pass") as held:
            await held.run(b"SELECT FROM presets WHERE id = %(id)s FOR NO KEY UPDATE", {"id": pool.preset_id})
            invalidating = asyncio.create_task(invalidate(operator, ["small"]))
            await until_waiting(observer)
            # Not committed yet, so the claim begins before it.
            claimed = await claim_prebuild(database, pool, user_id)
        answer = await invalidating

    assert answer.prebuild_count == 0
    async with database.transaction("test") as tx:
        owner = select(schema.Workspace.owner_id).where(schema.Workspace.id == claimed.workspace_id)
        assert await tx.scalar(owner) == user_id
    await stage.until_states(preset.id, "starting")


async def test_what_a_pass_made_before_it_gave_the_preset_free_is_invalidated(
    operator: Client, stage: Stage, database: Database, database_url: str
) -> None:
    preset = (await filled(operator, stage))["small"]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer:
        async with database.transaction("holder") as held:
            await held.run(b"SELECT FROM presets WHERE id = %(id)s FOR NO KEY UPDATE", {"id": preset.id})
            invalidating = asyncio.create_task(invalidate(operator, ["small"]))
            await until_waiting(observer)
            now = await held.fetch_one(b"SELECT clock_timestamp() AS now", row=datetime)
            assert now is not None
        answer = await invalidating

    assert answer.invalidate_time.ToDatetime(now.tzinfo) > now


async def test_invalidating_is_on_record(operator: Client, stage: Stage, database: Database) -> None:
    await filled(operator, stage)
    await invalidate(operator, ["small"])

    async with database.transaction("test") as tx:
        log = schema.AuditEvent
        statement = select(log.principal_name, log.resource_name, log.details)
        (entry,) = await tx.execute(statement.where(log.action == "template.invalidate"))
    assert tuple(entry) == ("root", "python-dev", {"presets": ["small"], "prebuilds": 1})


async def test_templates_that_cannot_be_invalidated_are_refused(operator: Client) -> None:
    request = template_service_pb2.CreateTemplateRequest(
        organization="acme", template=template_pb2.Template(name="empty")
    )
    await operator.templates.CreateTemplate(request, metadata=operator.metadata)
    pushed = await operator.push()
    delete = template_service_pb2.DeleteTemplateRequest(id=pushed.template.id)
    await operator.templates.DeleteTemplate(delete, metadata=operator.metadata)

    for validate_only in (False, True):
        with refused(Reason.NO_ACTIVE_VERSION):
            await invalidate(operator, template="empty", validate_only=validate_only)
        with refused(Reason.TEMPLATE_DELETED):
            await invalidate(operator, template=pushed.template.id, validate_only=validate_only)
        with refused(Reason.NOT_FOUND):
            await invalidate(operator, template=pushed.template.name, validate_only=validate_only)


async def test_presets_of_other_versions_and_names_that_nothing_has_are_not_found(operator: Client) -> None:
    before = (await operator.push(TWO)).presets[0]
    await operator.push(make_manifest(), activate=True)

    for named in (before.id, "large", str(uuid4())):
        with refused(Reason.NOT_FOUND) as caught:
            await invalidate(operator, ["small", named])
        assert named in str(caught[0])


async def test_members_invalidate_nothing_and_others_find_nothing(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    await operator.make_organization()
    other: admin_pb2.Organization = await operator.make_organization("other")
    await operator.push()
    member = await reconcilers.client(address, operator=False, name="mia", roles=[Role.MEMBER])
    stranger = await reconcilers.client(address, operator=False, name="sam", roles=[Role.OWNER], at=other.name)
    admin = await reconcilers.client(address, operator=False, name="ada", roles=[Role.TEMPLATE_ADMIN])

    with refused(Reason.PERMISSION_DENIED):
        await invalidate(member)
    with refused(Reason.NOT_FOUND):
        await invalidate(stranger)
    assert len((await invalidate(admin)).preset_ids) == 1


async def test_all_that_is_wrong_with_an_invalidation_is_told_at_once(operator: Client) -> None:
    with refused(Reason.INVALID_FIELDS) as caught:
        request = pb.InvalidatePresetsRequest(presets=["small", "", "x" * 201])
        await operator.pools.InvalidatePresets(request, metadata=operator.metadata)
    assert [violation.field for violation in caught[0].violations] == [
        "organization",
        "template",
        "presets[1]",
        "presets[2]",
    ]
    with refused(Reason.INVALID_FIELDS) as caught:
        await invalidate(operator, ["small"] * 501)
    assert [violation.field for violation in caught[0].violations] == ["presets"]


async def pause_everything(client: Client) -> None:
    request = pb.PauseReconciliationRequest(scope=pool_pb2.PAUSE_SCOPE_DEPLOYMENT)
    await client.pools.PauseReconciliation(request, metadata=client.metadata)


async def test_presets_that_ask_for_no_prebuilds_are_not_meant(operator: Client) -> None:
    pooled, bare = (
        await operator.push(
            make_manifest(
                presets=[
                    {"name": "pooled", "parameters": {"size": "small"}, "prebuilds": {"instances": 0}},
                    {"name": "bare", "parameters": {"size": "small"}},
                ]
            )
        )
    ).presets

    assert list((await invalidate(operator)).preset_ids) == [pooled.id]
    for named in ("bare", bare.id):
        with refused(Reason.NOT_FOUND) as caught:
            await invalidate(operator, ["pooled", named])
        assert named in str(caught[0])


async def test_presets_of_a_deprecated_template_are_invalidated(operator: Client) -> None:
    pushed = await operator.push(make_manifest())
    request = template_service_pb2.DeprecateTemplateRequest(id=pushed.template.id, message="use go-dev")
    await operator.templates.DeprecateTemplate(request, metadata=operator.metadata)

    assert list((await invalidate(operator)).preset_ids) == [pushed.presets[0].id]
