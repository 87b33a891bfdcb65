"""Pools are brought to their target, woken by events or by the tick alone."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from prebuilds.domain.builds import BuildOutcome, FailureClass, Transition
from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId, VersionId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.reconciler.queries.pools import lock_preset
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import pool_pb2, template_pb2, template_service_pb2
from tests.support.builders import claim_prebuild, make_user
from tests.support.reconciling import Client, Reconcilers, Stage, make_manifest
from tests.support.waiting import eventually


async def test_a_pushed_template_fills_its_pool_in_one_pass(operator: Client, stage: Stage) -> None:
    pushed = await operator.push(make_manifest(instances=3))
    preset = pushed.presets[0]

    await eventually(lambda: stage.jobs(preset.id), what="a job is queued")

    assert len(await stage.jobs(preset.id)) == 3
    pool = await operator.pool(preset.id)
    assert (pool.counts.desired, pool.counts.starting, pool.counts.actual) == (3, 3, 0)
    assert not pool.plan
    assert pool.target.source == pool_pb2.TARGET_SOURCE_INSTANCES


async def test_prebuilds_are_built_with_all_parameters_by_the_system_user(
    operator: Client, stage: Stage, database: Database
) -> None:
    parameters = [{"name": "size", "default": "small"}, {"name": "dotfiles", "default": ""}]
    presets = [{"name": "big", "parameters": {"size": "big"}, "prebuilds": {"instances": 1}}]
    pushed = await operator.push(make_manifest(parameters=parameters, presets=presets))
    await eventually(lambda: stage.jobs(pushed.presets[0].id))

    async with database.transaction("test") as tx:
        build = (await tx.execute(select(schema.Build.parameters, schema.Build.owner_name, schema.Build.number))).one()
        workspace = (await tx.execute(select(schema.Workspace.name, schema.Workspace.ttl))).one()

    assert build == ({"size": "big", "dotfiles": ""}, "prebuilds", 1)
    assert workspace[0].startswith("prebuild-")
    assert len(workspace[0]) == len("prebuild-") + 15
    assert workspace[1] is None


async def test_a_claimed_prebuild_is_replaced_without_waiting_for_the_tick(
    operator: Client, stage: Stage, database: Database
) -> None:
    pushed = await operator.push(make_manifest(instances=2))
    preset = pushed.presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    await stage.make_eligible(preset.id)
    assert (await operator.pool(preset.id)).counts.eligible == 2

    await claim_prebuild(database, pool_key(preset), await make_user(database), name="mine")
    # Nobody in this process publishes for the claim: the sweeper finds its event.
    await eventually(lambda: stage.jobs(preset.id), what="the replacement is queued")

    assert await stage.states(preset.id) == ["running", "starting"]


async def test_the_tick_alone_fills_pools(reconcilers: Reconcilers, stage: Stage) -> None:
    address = await reconcilers.start(nats_url="nats://127.0.0.1:1", reconciliation_interval=timedelta(seconds=1))
    client = await reconcilers.client(address)
    await client.make_organization()

    pushed = await client.push(make_manifest(instances=2))

    await eventually(lambda: stage.jobs(pushed.presets[0].id), what="the tick has come")
    assert len(await stage.jobs(pushed.presets[0].id)) == 2


async def test_an_expired_prebuild_is_replaced_in_the_same_pass(
    operator: Client, stage: Stage, database: Database
) -> None:
    presets = [{"name": "p", "prebuilds": {"instances": 2, "expiration_policy": {"ttl": 3600}}}]
    preset = (await operator.push(make_manifest(presets=presets))).presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    old, _ = await stage.make_eligible(preset.id)
    await stage.age(old, timedelta(seconds=3601))

    done = await operator.reconcile()

    assert (done.deleted, done.created) == (1, 1)
    assert await stage.states(preset.id) == ["deleting", "running", "starting"]
    assert len(await stage.jobs(preset.id, Transition.DELETE)) == 1
    async with database.transaction("test") as tx:
        events = select(schema.PoolEvent.workspace_id).where(schema.PoolEvent.kind == PoolEventKind.EXPIRED)
        assert (await tx.execute(events)).scalars().all() == [old]


async def test_what_is_deleted_leaves_the_pool(operator: Client, stage: Stage) -> None:
    presets = [{"name": "p", "prebuilds": {"instances": 1, "expiration_policy": {"ttl": 3600}}}]
    preset = (await operator.push(make_manifest(presets=presets))).presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    (old,) = await stage.make_eligible(preset.id)
    await stage.age(old, timedelta(hours=2))
    await operator.reconcile()

    await stage.finish(await stage.jobs(preset.id, Transition.DELETE))

    assert await stage.states(preset.id) == ["starting"]
    assert (await operator.reconcile()).created == 0


async def test_a_promoted_version_drains_the_pool_before_it(operator: Client, stage: Stage) -> None:
    first = await operator.push(make_manifest(instances=3))
    old = first.presets[0]
    await eventually(lambda: stage.jobs(old.id))
    jobs = await stage.jobs(old.id)
    await stage.finish(jobs[:1])

    second = await operator.push(make_manifest(instances=1))
    assert not second.version.active
    promotion = template_service_pb2.PromoteTemplateVersionRequest(id=second.version.id)
    promoted = await operator.templates.PromoteTemplateVersion(promotion, metadata=operator.metadata)
    assert promoted.previous_version_id == first.version.id
    await eventually(lambda: stage.jobs(old.id, Transition.DELETE), what="the old pool drains")
    await eventually(lambda: stage.jobs(second.presets[0].id), what="the new pool fills")

    assert await stage.jobs(old.id) == []
    assert await stage.states(old.id) == ["deleting"]
    assert len(await stage.jobs(second.presets[0].id)) == 1


async def test_two_reconcilers_never_overshoot(reconcilers: Reconcilers, stage: Stage) -> None:
    clients = [await reconcilers.client(await reconcilers.start()) for _ in range(2)]
    await clients[0].make_organization()
    presets = [
        {"name": f"p{number}", "parameters": {"size": "small"}, "prebuilds": {"instances": 2}} for number in range(10)
    ]
    pushed = await clients[0].push(make_manifest(presets=presets))

    for _ in range(5):
        await asyncio.gather(*(client.reconcile() for client in clients for _ in range(2)))

    for preset in pushed.presets:
        assert len(await stage.jobs(preset.id)) == 2


async def test_recent_failures_are_waited_out(operator: Client, stage: Stage) -> None:
    preset = (await operator.push(make_manifest(instances=1))).presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    await stage.finish(await stage.jobs(preset.id), BuildOutcome.FAILED, FailureClass.INFRASTRUCTURE)

    done = await operator.reconcile()

    pool = await operator.pool(preset.id)
    assert (done.created, done.backing_off) == (0, 1)
    assert pool.counts.failed == 1
    assert pool.plan[0].back_off.failure_count == 1
    assert [block.kind for block in pool.blocked_by] == [pool_pb2.BLOCK_KIND_BACKING_OFF]


async def test_three_faults_of_the_template_stop_its_pool(operator: Client, stage: Stage) -> None:
    preset = (await operator.push(make_manifest(instances=3))).presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    await stage.finish(await stage.jobs(preset.id), BuildOutcome.FAILED, FailureClass.TEMPLATE)

    done = await operator.reconcile()

    assert done.created == 0
    pool = await operator.pool(preset.id)
    assert [block.kind for block in pool.blocked_by] == [pool_pb2.BLOCK_KIND_HARD_LIMITED]


async def test_a_claim_between_the_plan_and_its_commit_is_refilled_by_its_event(
    operator: Client, stage: Stage, database: Database
) -> None:
    preset = (await operator.push(make_manifest(instances=1))).presets[0]
    pool = pool_key(preset)
    await eventually(lambda: stage.jobs(preset.id))
    await stage.make_eligible(preset.id)
    alice = await make_user(database)

    # Whoever works on the pool has planned before the claim, and still holds the preset when its event arrives.
    async with database.transaction("another replica") as tx:
        assert await lock_preset(tx, pool.preset_id)
        await claim_prebuild(database, pool, alice)
        assert (await operator.reconcile()).presets_held_elsewhere == 1

    await eventually(lambda: stage.jobs(preset.id), what="the replacement is queued")
    assert await stage.states(preset.id) == ["starting"]


def pool_key(preset: template_pb2.Preset) -> PoolKey:
    return PoolKey(
        OrganizationId(UUID(preset.organization_id)),
        TemplateId(UUID(preset.template_id)),
        VersionId(UUID(preset.version_id)),
        PresetId(UUID(preset.id)),
        preset.name,
    )
