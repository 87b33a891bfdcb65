"""Promoting a version and rolling back, over gRPC; passes are woken by events, their tick is an hour away."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from prebuilds.domain.builds import BuildOutcome, FailureClass, JobStatus, Transition
from prebuilds.reconciler.queries.pools import lock_preset
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import create_prebuilds
from prebuilds.v1 import pool_pb2
from prebuilds.v1 import template_service_pb2 as pb
from tests.support.reconciling import Client, Reconcilers, Stage, make_manifest
from tests.support.templates import (
    deeds,
    deprecate,
    eventually_queued,
    get_template,
    hours,
    job_status,
    pool_key,
    promote,
    take,
)
from tests.support.waiting import eventually, until_waiting

DELETE = Transition.DELETE


async def test_a_promotion_drains_the_old_pool_and_fills_the_new_and_a_rollback_turns_that_round(
    operator: Client, stage: Stage, database: Database
) -> None:
    first = await operator.push(make_manifest(instances=3))
    old = first.presets[0]
    queued, taken, built = await eventually_queued(stage, old.id, 3)
    await stage.finish([built])
    await take(database, taken)
    second = await operator.push(make_manifest(instances=2))
    new = second.presets[0]

    promoted = await promote(operator, second.version.id)

    assert (promoted.version.id, promoted.version.active) == (second.version.id, True)
    assert promoted.template.active_version_name == "v2"
    assert promoted.previous_version_id == first.version.id
    await eventually_queued(stage, new.id, 2)
    deletes = await eventually_queued(stage, old.id, 1, DELETE)
    assert await job_status(database, queued) is JobStatus.CANCELED
    assert await job_status(database, taken) is JobStatus.RUNNING
    assert await stage.states(old.id) == ["deleting", "starting"]

    back = await promote(operator, promoted.previous_version_id)

    assert (back.version.id, back.previous_version_id) == (first.version.id, second.version.id)
    # What a daemon was building all the time is one of the three again.
    await eventually_queued(stage, old.id, 2)
    await eventually_queued(stage, new.id, 0)
    await stage.finish([taken, *deletes])
    assert await stage.states(old.id) == ["running", "starting", "starting"]
    assert await stage.states(new.id) == []
    assert (await deeds(database))[-2:] == [
        ("template.promote", {"version": {"from": "v1", "to": "v2"}}),
        ("template.promote", {"version": {"from": "v2", "to": "v1"}}),
    ]


async def test_what_was_being_built_of_the_old_version_is_deleted_when_it_is_done(
    operator: Client, stage: Stage, database: Database
) -> None:
    old = (await operator.push(make_manifest(instances=1))).presets[0]
    (job_id,) = await eventually_queued(stage, old.id, 1)
    await take(database, job_id)
    new = (await operator.push(make_manifest(instances=1), activate=True)).presets[0]
    await eventually_queued(stage, new.id, 1)

    await stage.finish([job_id])

    await stage.finish(await eventually_queued(stage, old.id, 1, DELETE))
    assert await stage.states(old.id) == []


async def test_promoting_the_active_version_does_nothing(operator: Client, database: Database) -> None:
    pushed = await operator.push(make_manifest(instances=0))

    promoted = await promote(operator, pushed.version.id)

    assert promoted.template == pushed.template
    assert promoted.version == pushed.version
    assert [action for action, _ in await deeds(database)] == ["template.push"]


async def test_a_new_version_has_a_healthy_preset_and_a_fresh_history(operator: Client, stage: Stage) -> None:
    first = await operator.push(make_manifest(instances=3))
    old = first.presets[0]
    await stage.finish(await eventually_queued(stage, old.id, 3), BuildOutcome.FAILED, FailureClass.TEMPLATE)
    await operator.reconcile()
    assert await blocks(operator, old.id) == [pool_pb2.BLOCK_KIND_HARD_LIMITED]

    second = await operator.push(make_manifest(instances=2), activate=True)
    new = second.presets[0]

    await eventually_queued(stage, new.id, 2)
    assert await blocks(operator, new.id) == []
    await promote(operator, first.version.id)
    await eventually_queued(stage, new.id, 0)
    assert await blocks(operator, old.id) == [pool_pb2.BLOCK_KIND_HARD_LIMITED]
    assert await stage.jobs(old.id) == []


@pytest.mark.parametrize("by_push", [False, True], ids=["by promotion", "by push"])
async def test_what_a_pass_was_just_making_of_the_old_version_drains_too(
    by_push: bool, operator: Client, stage: Stage, database: Database, database_url: str
) -> None:
    old = (await operator.push(make_manifest(instances=0))).presets[0]
    second = await operator.push(make_manifest(instances=1))
    pool = pool_key(old)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer:
        # Another replica's pass, which has read the pool as it was before.
        async with database.transaction("reconcile") as tx:
            assert await lock_preset(tx, pool.preset_id)
            await create_prebuilds(tx, pool, 2, parameters={"size": "small"}, reason="test")
            changing = asyncio.ensure_future(
                operator.push(make_manifest(instances=1), activate=True)
                if by_push
                else promote(operator, second.version.id)
            )
            await until_waiting(observer)
            assert (await get_template(operator, old.template_id)).active_version_name == "v1"
        await changing

    async def is_drained() -> bool:
        return await stage.states(old.id) == []

    await eventually(is_drained, what="the old pool drains")
    assert (await get_template(operator, old.template_id)).active_version_name == ("v3" if by_push else "v2")


async def test_a_pass_that_comes_while_a_version_is_promoted_makes_nothing_of_the_old_one(
    operator: Client, stage: Stage, database: Database
) -> None:
    old = (await operator.push(make_manifest(instances=1))).presets[0]
    second = await operator.push(make_manifest(instances=1))
    await eventually_queued(stage, old.id, 1)
    await stage.make_eligible(old.id)

    await asyncio.gather(promote(operator, second.version.id), *(operator.reconcile() for _ in range(5)))

    await eventually_queued(stage, second.presets[0].id, 1)
    await eventually_queued(stage, old.id, 1, DELETE)
    assert await stage.jobs(old.id) == []


async def test_of_versions_promoted_at_once_one_is_active_and_only_its_pool_is_filled(
    reconcilers: Reconcilers, stage: Stage
) -> None:
    clients = [await reconcilers.client(await reconcilers.start()) for _ in range(2)]
    await clients[0].make_organization()
    versions = [await clients[0].push(make_manifest(instances=2)) for _ in range(4)]

    for _ in range(3):
        await asyncio.gather(
            *(promote(clients[number % 2], pushed.version.id) for number, pushed in enumerate(versions))
        )

    active_id = (await get_template(clients[0], versions[0].template.id)).active_version_id
    for pushed in versions:
        await eventually_queued(stage, pushed.presets[0].id, 2 if pushed.version.id == active_id else 0)


async def test_strategy_and_lifecycle_are_those_of_the_manifest_that_is_active(operator: Client) -> None:
    first = await operator.push(make_manifest(instances=0, lifecycle={"ttl": "8h", "time_til_dormant": "720h"}))
    second = await operator.push(
        make_manifest(instances=0, claim_strategy="instant", lifecycle={"ttl": "4h"}), activate=True
    )
    third = await operator.push(make_manifest(instances=0), activate=True)

    # What a manifest does not say stays as it was.
    assert second.template.lifecycle.ttl == third.template.lifecycle.ttl == hours(4)
    assert third.template.lifecycle.time_til_dormant == hours(720)
    back = (await promote(operator, first.version.id)).template

    assert back.lifecycle.ttl == hours(8)
    assert back.claim_strategy == first.template.claim_strategy != second.template.claim_strategy


async def test_a_version_promoted_while_the_template_is_deprecated_is_filled_when_that_is_lifted(
    operator: Client, stage: Stage
) -> None:
    first = await operator.push(make_manifest(instances=1))
    await deprecate(operator, first.template.id, "not now")
    second = await operator.push(make_manifest(instances=2))

    promoted = await promote(operator, second.version.id)
    assert promoted.template.deprecation_message == "not now"
    request = pb.GetPresetRequest(id=second.presets[0].id)
    assert not (await operator.templates.GetPreset(request, metadata=operator.metadata)).preset.active
    assert (await operator.reconcile()).created == 0
    await deprecate(operator, first.template.id, "")

    await eventually_queued(stage, second.presets[0].id, 2)
    await eventually_queued(stage, first.presets[0].id, 0)


async def blocks(client: Client, preset_id: str) -> list[int]:
    return [block.kind for block in (await client.pool(preset_id)).blocked_by]
