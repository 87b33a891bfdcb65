"""That no pass keeps others waiting: claims are made up for while long passes are held at their work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
import pytest
import pytest_asyncio

from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.domain.ids import PresetId
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.outcomes import PassStatistics
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.pools import Extent
from prebuilds.reconciler.wakeups import EVERYTHING, Wakeups
from prebuilds.store.database import Database, open_database
from tests.support.builders import make_organization, make_pool
from tests.support.pools import Passes, count_tries, make_reconciler
from tests.support.waiting import eventually, until_waiting

HELD = 8
SLOTS = 3


def about(*pools: Passes) -> Extent:
    return Extent(preset_ids=frozenset(each.pool.preset_id for each in pools))


@dataclass
class Scene:
    """Pools that want none yet, and a reconciler with a tick of an hour whose first one is over."""

    database: Database
    pools: Sequence[Passes]
    """Whose templates can be held."""
    claimed: Passes
    """Whose template is nobody's."""
    reconciler: Reconciler
    hints: Hints
    holder: psycopg.AsyncConnection
    observer: psycopg.AsyncConnection
    done: list[tuple[Extent, PassStatistics]] = field(default_factory=list[tuple[Extent, PassStatistics]])
    """The passes that are over."""

    async def hold(self, pools: Sequence[Passes]) -> None:
        """Keep whoever makes prebuilds of these pools waiting, until `let_go`."""
        ids = [each.pool.template_id for each in pools]
        await self.holder.execute("SELECT FROM templates WHERE id = ANY(%s) FOR UPDATE", [ids])

    async def let_go(self) -> None:
        await self.holder.rollback()

    async def want(self, instances: int, *pools: Passes) -> None:
        for each in pools:
            await each.set_preset(desired_instances=instances)

    async def until_filled(self, *pools: Passes) -> None:
        async def are_filled() -> bool:
            return all([await each.jobs() for each in pools])

        await eventually(are_filled, what="the pools are filled")

    def over(self, preset_id: PresetId) -> list[PassStatistics]:
        """What the passes did that were about this preset."""
        return [done for extent, done in self.done if preset_id in extent.preset_ids]


@pytest_asyncio.fixture
async def scene(database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Scene]:
    organization = await make_organization(database)
    *pools, claimed = [
        Passes(database, await make_pool(database, organization, template=f"t{number}", instances=0))
        for number in range(HELD + 1)
    ]
    run_pass = Reconciler.run_pass
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
        open_database(database_url, pool_size=2 * SLOTS) as own,
        BackgroundTasks() as tasks,
    ):
        hints = Hints()
        reconciler = make_reconciler(own, hints=hints, concurrency=SLOTS)
        scene = Scene(own, pools, claimed, reconciler, hints, holder, observer)

        async def run_and_tell(reconciler: Reconciler, extent: Extent) -> PassStatistics:
            done = await run_pass(reconciler, extent)
            scene.done.append((extent, done))
            return done

        monkeypatch.setattr(Reconciler, "run_pass", run_and_tell)
        Wakeups(reconciler, hints, interval=timedelta(hours=1)).start(tasks)
        await eventually(lambda: scene.done, what="the first tick is over")
        yield scene
        await scene.let_go()


async def test_a_claim_is_made_up_for_while_a_pass_over_everything_is_held(scene: Scene) -> None:
    await scene.hold(scene.pools)
    await scene.want(1, *scene.pools)
    ticking = asyncio.create_task(scene.reconciler.run_pass(EVERYTHING))
    await until_waiting(scene.observer, SLOTS - 1)

    await scene.want(1, scene.claimed)
    scene.hints.add(about(scene.claimed))

    await scene.until_filled(scene.claimed)
    assert not ticking.done()
    await scene.let_go()
    assert (await ticking).created == HELD


async def test_a_claim_is_made_up_for_while_a_promotion_is_held(scene: Scene) -> None:
    await scene.hold(scene.pools)
    await scene.want(1, *scene.pools)
    scene.hints.add(about(*scene.pools))
    await until_waiting(scene.observer, SLOTS - 1)

    await scene.want(1, scene.claimed)
    scene.hints.add(about(scene.claimed))

    await scene.until_filled(scene.claimed)
    assert scene.over(scene.pools[0].pool.preset_id) == []
    await scene.let_go()
    await scene.until_filled(*scene.pools)


async def test_an_event_during_the_work_on_its_pool_is_followed_when_that_is_done(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = scene.pools[0]
    tries = count_tries(monkeypatch, scene.database)
    await scene.hold([pool])
    await scene.want(1, pool)
    scene.hints.add(about(pool))
    await until_waiting(scene.observer)

    scene.hints.add(about(pool))

    (during,) = await eventually(lambda: scene.over(pool.pool.preset_id), what="somebody else comes to the pool")
    assert (during.held_elsewhere, len(tries)) == (1, 1), "nobody works on it twice at once"
    await scene.let_go()
    await eventually(lambda: len(scene.over(pool.pool.preset_id)) == 3, what="it is looked at once more")
    _, worked, after = sorted(scene.over(pool.pool.preset_id), key=lambda each: each.started_at != during.started_at)
    assert {worked.created, after.created} == {0, 1}
    assert len(tries) == 1


async def test_with_a_single_slot_both_get_on(scene: Scene) -> None:
    alone = make_reconciler(scene.database, concurrency=1)
    await scene.want(1, *scene.pools, scene.claimed)

    both = await asyncio.gather(alone.run_pass(EVERYTHING), alone.run_pass(about(scene.claimed)))

    assert sum(each.created for each in both) == HELD + 1
