"""What wakes the reconciler, how often it looks then, and that the tick does all of it while NATS is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from prebuilds.domain.builds import BuildOutcome, FailureClass, Transition
from prebuilds.domain.ids import PresetId
from prebuilds.embedded.nats import EmbeddedNats
from prebuilds.reconciler import passes
from prebuilds.reconciler.execution import Done, execute
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.outcomes import PassStatistics
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.pools import Extent
from prebuilds.store.database import Database
from prebuilds.v1 import admin_pb2, pool_pb2
from prebuilds.v1 import admin_service_pb2 as admin
from prebuilds.v1 import pool_service_pb2 as pb
from prebuilds.v1.template_service_pb2 import PushTemplateVersionResponse
from tests.support.builders import claim_prebuild, make_user
from tests.support.reconciling import ORGANIZATION, Client, Reconcilers, Stage, make_manifest
from tests.support.templates import pool_key, promote
from tests.support.waiting import eventually

CLAIMS = 50
FEW = 8
"""Passes that many events at once may lead to; how many it is depends on when each of them arrives."""
WITH_TTL = [{"name": "p", "prebuilds": {"instances": 2, "expiration_policy": {"ttl": 3600}}}]


@dataclass
class Looks:
    """The passes that were run, what each was about and what it did."""

    run: list[tuple[Extent, PassStatistics]] = field(default_factory=list[tuple[Extent, PassStatistics]])

    def that_did_something(self) -> list[Extent]:
        return [extent for extent, done in self.run if (done.created, done.deleted, done.canceled) != (0, 0, 0)]

    def at(self, preset_id: PresetId) -> list[PassStatistics]:
        """The passes that hints about this preset led to."""
        return [done for extent, done in self.run if preset_id in extent.preset_ids]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Every pass from here on."""
    seen, run_pass = Looks(), Reconciler.run_pass

    async def run_and_tell(reconciler: Reconciler, extent: Extent) -> PassStatistics:
        done = await run_pass(reconciler, extent)
        seen.run.append((extent, done))
        return done

    monkeypatch.setattr(Reconciler, "run_pass", run_and_tell)
    return seen


@dataclass(frozen=True)
class Scene:
    """A template whose pool of one is full, with what people do to it."""

    client: Client
    stage: Stage
    database: Database
    pushed: PushTemplateVersionResponse

    @property
    def preset_id(self) -> str:
        return self.pushed.presets[0].id

    async def claim(self) -> None:
        user = await make_user(self.database, "alice")
        await claim_prebuild(self.database, pool_key(self.pushed.presets[0]), user)

    async def allow(self, allowance: int) -> None:
        """Set what the prebuilds of the organisation may cost."""
        listed = await self.client.admin.ListGroups(
            admin.ListGroupsRequest(organization=ORGANIZATION), metadata=self.client.metadata
        )
        (group,) = (group for group in listed.groups if group.name == "prebuilds")
        request = admin.UpdateGroupRequest(
            group=admin_pb2.Group(id=group.id, quota_allowance=allowance),
            update_mask=FieldMask(paths=["quota_allowance"]),
        )
        await self.client.admin.UpdateGroup(request, metadata=self.client.metadata)


@pytest_asyncio.fixture
async def scene(reconcilers: Reconcilers, stage: Stage, database: Database, looks: Looks) -> Scene:
    client = await reconcilers.client(await reconcilers.start(backoff_interval=timedelta(0)))
    await client.make_organization()
    await client.push(make_manifest("another", instances=1))
    pushed = await client.push(make_manifest(instances=1))
    await stage.until_states(pushed.presets[0].id, "starting")
    await stage.make_eligible(pushed.presets[0].id)
    await until_heard(database)
    return Scene(client, stage, database, pushed)


async def until_heard(database: Database) -> None:
    """Wait until all events are out."""

    async def is_empty() -> bool:
        async with database.read("test") as tx:
            return await tx.fetch_one(b"SELECT count(*) FROM outbox", row=int) == 0

    await eventually(is_empty, what="all events are out")


Change = Callable[[Scene], Awaitable[None]]


async def a_claim(scene: Scene) -> None:
    await scene.claim()


async def a_job_that_failed(scene: Scene) -> None:
    await scene.claim()
    await scene.stage.until_states(scene.preset_id, "starting")
    await scene.stage.finish(await scene.stage.jobs(scene.preset_id), BuildOutcome.FAILED, FailureClass.INFRASTRUCTURE)


async def a_pause_that_ends(scene: Scene) -> None:
    target = pb.PauseReconciliationRequest(scope=pool_pb2.PAUSE_SCOPE_TEMPLATE, target_id=scene.pushed.template.id)
    await scene.client.pools.PauseReconciliation(target, metadata=scene.client.metadata)
    await scene.claim()
    await until_heard(scene.database)
    assert await scene.stage.states(scene.preset_id) == []
    resumption = pb.ResumeReconciliationRequest(scope=target.scope, target_id=target.target_id)
    await scene.client.pools.ResumeReconciliation(resumption, metadata=scene.client.metadata)


async def an_allowance_that_grows(scene: Scene) -> None:
    async with scene.database.transaction("test") as tx:
        await tx.run(b"UPDATE builds SET daily_cost = 10")
    await scene.allow(5)
    await scene.claim()

    async def is_blocked() -> bool:
        blocks = (await scene.client.pool(scene.preset_id)).blocked_by
        return [block.kind for block in blocks] == [pool_pb2.BLOCK_KIND_OVER_QUOTA]

    await eventually(is_blocked, what="the pool is over quota")
    await scene.allow(100)


@pytest.mark.parametrize("change", [a_claim, a_job_that_failed, a_pause_that_ends, an_allowance_that_grows])
async def test_news_wake_the_reconciler_for_the_pools_that_they_are_about(
    scene: Scene, looks: Looks, change: Change
) -> None:
    before = len(looks.run)

    await change(scene)

    await eventually(lambda: scene.stage.jobs(scene.preset_id), what="the pool is filled without a tick")
    await until_heard(scene.database)
    assert not any(extent.everything for extent, _ in looks.run[before:])
    assert len(looks.run) - before <= FEW


async def test_a_promoted_version_is_filled_and_the_one_before_drained_without_a_tick(
    scene: Scene, looks: Looks
) -> None:
    second = await scene.client.push(make_manifest(instances=2))
    before = len(looks.run)

    await promote(scene.client, second.version.id)

    await scene.stage.until_states(scene.preset_id, "deleting")
    await scene.stage.until_states(second.presets[0].id, "starting", "starting")
    assert not any(extent.everything for extent, _ in looks.run[before:])
    assert len(looks.run) - before <= FEW


async def test_many_claims_at_once_are_made_up_for_by_few_passes(
    operator: Client, stage: Stage, database: Database, looks: Looks
) -> None:
    preset = (await operator.push(make_manifest(instances=CLAIMS))).presets[0]
    await stage.until_states(preset.id, *["starting"] * CLAIMS)
    await stage.make_eligible(preset.id)
    await until_heard(database)
    users = [await make_user(database, f"u{number}") for number in range(CLAIMS)]
    before = len(looks.run)

    # Nobody in these claims' process publishes: the sweeper finds the events of all of them.
    await asyncio.gather(*(claim_prebuild(database, pool_key(preset), user) for user in users))

    await stage.until_states(preset.id, *["starting"] * CLAIMS)
    await until_heard(database)
    assert sum(done.created for _, done in looks.run[before:]) == CLAIMS
    assert len(looks.run) - before <= FEW


async def test_a_claim_between_a_passs_second_look_and_its_commit_is_made_up_for_without_a_tick(
    operator: Client, stage: Stage, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = (await operator.push(make_manifest(presets=WITH_TTL))).presets[0]
    await stage.until_states(preset.id, "starting", "starting")
    old, _ = await stage.make_eligible(preset.id)
    await until_heard(database)
    pool, alice = pool_key(preset), await make_user(database)
    heard, add = list[Extent](), Hints.add
    amid: list[Done] = []

    def add_and_tell(hints: Hints, extent: Extent) -> None:
        heard.append(extent)
        add(hints, extent)

    async def wait_and_execute(*planned: Any) -> Done:
        if amid:
            return await execute(*planned)
        heard.clear()
        await claim_prebuild(database, pool, alice)
        # This pass holds the preset, and what it has planned by is over.
        await eventually(lambda: any(pool.preset_id in extent.preset_ids for extent in heard), what="it is heard")
        amid.append(await execute(*planned))
        return amid[0]

    monkeypatch.setattr(Hints, "add", add_and_tell)
    monkeypatch.setattr(passes, "execute", wait_and_execute)
    await stage.age(old, timedelta(hours=2))
    await operator.reconcile()

    await stage.until_states(preset.id, "deleting", "starting", "starting")
    assert [(done.deleted, done.created) for done in amid] == [(1, 1)]


async def test_with_nats_away_the_tick_alone_brings_every_pool_to_its_target_and_hints_flow_when_it_is_back(
    reconcilers: Reconcilers, restartable_nats: EmbeddedNats, stage: Stage, database: Database, looks: Looks
) -> None:
    address = await reconcilers.start(nats_url=restartable_nats.url, reconciliation_interval=timedelta(seconds=1))
    client = await reconcilers.client(address)
    await client.make_organization()
    names = ("claimed", "invalidated", "promoted")
    pools = {name: (await client.push(make_manifest(name, instances=1))).presets[0] for name in names}
    for preset in pools.values():
        await stage.until_states(preset.id, "starting")
        await stage.make_eligible(preset.id)
    second = await client.push(make_manifest("promoted", instances=2))
    await until_heard(database)

    restartable_nats.stop()
    await claim_prebuild(database, pool_key(pools["claimed"]), await make_user(database))
    invalidation = pb.InvalidatePresetsRequest(organization=ORGANIZATION, template="invalidated")
    await client.pools.InvalidatePresets(invalidation, metadata=client.metadata)
    await promote(client, second.version.id)

    await stage.until_states(pools["claimed"].id, "starting")
    await stage.until_states(pools["invalidated"].id, "deleting", "starting")
    await stage.until_states(pools["promoted"].id, "deleting")
    await stage.until_states(second.presets[0].id, "starting", "starting")
    assert len(await stage.jobs(pools["invalidated"].id, Transition.DELETE)) == 1
    assert all(extent.everything for extent in looks.that_did_something()[-1:])

    restartable_nats.start()
    await until_heard(database)
    await stage.make_eligible(pools["claimed"].id)
    pool = pool_key(pools["claimed"])
    before = len(looks.at(pool.preset_id))
    await claim_prebuild(database, pool, await make_user(database, "bob"))
    await eventually(lambda: len(looks.at(pool.preset_id)) > before, what="the claim's hint is followed")
    await stage.until_states(pools["claimed"].id, "starting")
