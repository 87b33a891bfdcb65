"""Who watches pools shares looks at them, and hears only of what changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Final, cast
from uuid import UUID

import pytest
import pytest_asyncio
from opentelemetry.metrics import NoOpMeter
from sqlalchemy import func, update

from prebuilds.domain.builds import BuildOutcome, FailureClass
from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId
from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.inspecting import Inspector, PoolFilter, PoolView
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.filters import PoolConditions
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.reconciler.watching import LOOKED_AGAIN_AFTER, Change, Watching
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import pool_pb2
from prebuilds.v1 import pool_service_pb2 as pb
from tests.support.builders import make_organization, make_pool
from tests.support.clock import ManualClock
from tests.support.reconciling import Client, Stage, make_manifest
from tests.support.waiting import eventually

ALL: Final = PoolFilter(PoolConditions())
LOOKBACK: Final = timedelta(hours=1)


class CountingInspector(Inspector):
    """Counts how often somebody goes through the pools."""

    walks = 0

    async def walk(
        self,
        organization_id: OrganizationId,
        wanted: PoolConditions,
        *,
        after: tuple[str, str, UUID] | None = None,
        step: int,
    ) -> AsyncGenerator[list[PoolView]]:
        self.walks += 1
        async with aclosing(super().walk(organization_id, wanted, after=after, step=step)) as lots:
            async for views in lots:
                yield views


@pytest_asyncio.fixture
async def organization(database: Database) -> OrganizationId:
    return await make_organization(database)


@pytest.fixture
def inspector(database: Database) -> CountingInspector:
    return CountingInspector(database, config=Config(), lookback=LOOKBACK)


async def run_pass(database: Database) -> None:
    passes = Reconciler(database, Hints(), config=Config(), lookback=LOOKBACK, concurrency=2, meter=NoOpMeter("test"))
    await passes.run_pass(EVERYTHING)


async def change_preset(database: Database, pool: PoolKey, **values: object) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Preset).where(schema.Preset.id == pool.preset_id).values(**values))


async def change_template(database: Database, template_id: TemplateId, **values: object) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Template).where(schema.Template.id == template_id).values(**values))


async def next_look(clock: ManualClock, inspector: CountingInspector) -> None:
    """Let the watcher, once it rests, begin to look again."""
    before = inspector.walks
    await clock.until_somebody_sleeps()
    clock.advance(LOOKED_AGAIN_AFTER)
    await eventually(lambda: inspector.walks > before)


def ids(change: Change) -> list[PresetId]:
    return [view.preset.preset_id for view in change.pools]


async def test_all_who_watch_an_organisation_share_its_looks(
    database: Database, organization: OrganizationId, inspector: CountingInspector
) -> None:
    pool = await make_pool(database, organization)
    watching = Watching(inspector, clock=ManualClock())
    watchers = [watching.watch(organization, ALL) for _ in range(5)]

    first = await asyncio.gather(*(anext(watcher) for watcher in watchers))

    assert [ids(change) for change in first] == [[pool.preset_id]] * 5
    assert inspector.walks == 1
    for watcher in watchers:
        await watcher.aclose()
    async with aclosing(watching.watch(organization, ALL)) as later:
        await anext(later)
    assert inspector.walks == 2, "nothing is kept when nobody watches"


async def test_nothing_is_told_of_what_stays_as_it_is(
    database: Database, organization: OrganizationId, inspector: CountingInspector, stage: Stage
) -> None:
    backing_off = await make_pool(database, organization, template="a", instances=1)
    full = await make_pool(database, organization, template="b", instances=3)
    await change_template(database, full.template_id, max_starting=1)
    await run_pass(database)
    await stage.finish(await stage.jobs(str(backing_off.preset_id)), BuildOutcome.FAILED, FailureClass.INFRASTRUCTURE)
    limited = await make_pool(database, organization, template="c")
    await change_preset(database, limited, status=PresetStatus.HARD_LIMITED)
    paused = await make_pool(database, organization, template="d")
    await change_preset(database, paused, paused_at=func.now())
    clock = ManualClock()
    async with aclosing(Watching(inspector, clock=clock).watch(organization, ALL)) as watcher:
        first = await anext(watcher)
        assert [len(view.blocks) for view in first.pools] == [1, 1, 1, 1]
        following = asyncio.ensure_future(anext(watcher))
        for _ in range(3):
            await next_look(clock, inspector)
        await clock.until_somebody_sleeps()
        assert not following.done()

        await change_preset(database, paused, paused_at=None)
        await next_look(clock, inspector)
        changed = await following

    assert ids(changed) == [paused.preset_id]
    assert changed.pools[0].at > first.pools[0].at
    assert changed.removed == []
    assert inspector.walks == 5


async def test_what_matches_no_more_and_what_is_gone_is_removed(
    database: Database, organization: OrganizationId, inspector: CountingInspector
) -> None:
    unmatched = await make_pool(database, organization, template="a")
    gone = await make_pool(database, organization, template="b")
    kept = await make_pool(database, organization, template="c")
    clock = ManualClock()
    healthy = PoolFilter(PoolConditions(status=PresetStatus.HEALTHY))
    async with aclosing(Watching(inspector, clock=clock).watch(organization, healthy)) as watcher:
        assert ids(await anext(watcher)) == [unmatched.preset_id, gone.preset_id, kept.preset_id]
        following = asyncio.ensure_future(anext(watcher))
        await clock.until_somebody_sleeps()
        await change_preset(database, unmatched, status=PresetStatus.VALIDATION_FAILED)
        await change_template(database, gone.template_id, deleted=True)
        await next_look(clock, inspector)
        change = await following

    assert change.pools == []
    assert set(change.removed) == {unmatched.preset_id, gone.preset_id}


async def test_who_comes_later_is_told_when_each_pool_was_seen(
    database: Database, organization: OrganizationId, inspector: CountingInspector
) -> None:
    await make_pool(database, organization)
    clock = ManualClock()
    watching = Watching(inspector, clock=clock)
    async with (
        aclosing(watching.watch(organization, ALL)) as first,
        aclosing(watching.watch(organization, ALL)) as later,
    ):
        (before,) = (await anext(first)).pools
        following = asyncio.ensure_future(anext(first))
        await next_look(clock, inspector)
        await clock.until_somebody_sleeps()
        (after,) = (await anext(later)).pools
        following.cancel()
        await asyncio.wait([following])

    assert inspector.walks == 2
    assert after.at > before.at


async def test_a_list_and_a_watch_find_the_same(operator: Client, stage: Stage) -> None:
    presets = [
        {"name": name, "parameters": {"size": "small"}, "prebuilds": {"instances": 1}} for name in ("one", "two")
    ]
    old = await operator.push(make_manifest("a", presets=presets), version_name="old")
    await operator.push(make_manifest("a", presets=presets), version_name="new", activate=True)
    other = await operator.push(make_manifest("b", presets=presets))
    pause = pb.PauseReconciliationRequest(scope=pool_pb2.PAUSE_SCOPE_TEMPLATE, target_id=other.template.id)
    await operator.pools.PauseReconciliation(pause, metadata=operator.metadata)

    for drained in old.presets:
        await stage.until_states(drained.id)

    for condition, number in (
        ("", 4),
        ("template=a", 2),
        (f"template={old.template.id} AND preset=one", 1),
        (f"preset={other.presets[0].id}", 1),
        ("version=new", 2),
        (f"version={other.version.id}", 2),
        ("active=true", 4),
        ("active=false", 0),
        ("status=healthy", 4),
        ("status=hard_limited", 0),
        ("blocked=true", 2),
        ("blocked=false AND preset=two", 1),
        ("template=nothing", 0),
    ):
        listing = pb.ListPoolsRequest(organization="acme", filter=condition)
        listed = (await operator.pools.ListPools(listing, metadata=operator.metadata)).pools
        watch = pb.WatchPoolsRequest(organization="acme", filter=condition)
        call = operator.pools.WatchPools(watch, metadata=operator.metadata)
        first = await anext(aiter(call))
        call.cancel()

        assert [pool.id for pool in first.pools] == [pool.id for pool in listed], condition
        assert len(listed) == number, condition
        assert first.synced


class FailingInspector(Inspector):
    """Gives something that cannot be looked at, and tells when it was let go."""

    is_closed = False

    async def walk(
        self,
        organization_id: OrganizationId,
        wanted: PoolConditions,
        *,
        after: tuple[str, str, UUID] | None = None,
        step: int,
    ) -> AsyncGenerator[list[PoolView]]:
        try:
            yield [cast("PoolView", None)]
        finally:
            self.is_closed = True


async def test_a_look_that_fails_lets_go_of_its_walk_at_once(database: Database, organization: OrganizationId) -> None:
    inspector = FailingInspector(database, config=Config(), lookback=LOOKBACK)
    async with aclosing(Watching(inspector, clock=ManualClock()).watch(organization, ALL)) as watcher:
        with pytest.raises(AttributeError):
            await anext(watcher)
        assert inspector.is_closed


async def test_a_watch_ends_with_its_organisation(
    database: Database, organization: OrganizationId, inspector: CountingInspector
) -> None:
    await make_pool(database, organization)
    clock = ManualClock()
    async with aclosing(Watching(inspector, clock=clock).watch(organization, ALL)) as watcher:
        await anext(watcher)
        following = asyncio.ensure_future(anext(watcher))
        await clock.until_somebody_sleeps()
        async with database.transaction("test") as tx:
            gone = update(schema.Organization).where(schema.Organization.id == organization)
            await tx.execute(gone.values(deleted=True))

        clock.advance(LOOKED_AGAIN_AFTER)

        with pytest.raises(Refusal) as caught:
            await following
    assert caught.value.reason is Reason.NOT_FOUND
