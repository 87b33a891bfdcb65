"""What changes by itself: an edge of a schedule and the end of a backoff are followed before the next tick."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import insert, update

from prebuilds.domain.builds import FailureClass
from prebuilds.domain.ids import PresetId
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.planning import Planning, Snapshot
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from tests.support.builders import make_organization, make_pool
from tests.support.pools import Passes, make_neighbour, make_reconciler

HOUR = timedelta(hours=1)
EVERY_OTHER_HOUR = "* 1-23/2 * * *"
"""So that every hour brings a change."""


@pytest_asyncio.fixture
async def pool(database: Database) -> PoolKey:
    return await make_pool(database, await make_organization(database), instances=1)


async def schedule(database: Database, *preset_ids: PresetId) -> None:
    values = {"ordinal": 0, "cron": EVERY_OTHER_HOUR, "instances": 2}
    async with database.transaction("test") as tx:
        for preset_id in preset_ids:
            await tx.execute(update(schema.Preset).where(schema.Preset.id == preset_id).values(timezone="UTC"))
            await tx.execute(insert(schema.PresetSchedule).values(preset_id=preset_id, **values))


async def look(database: Database, *, horizon: timedelta) -> Snapshot:
    planning = Planning(config=Config(), lookback=HOUR, horizon=horizon)
    async with database.read("test", snapshot=True) as tx:
        return await planning.take_snapshot(tx, EVERYTHING)


async def test_an_edge_of_a_schedule_is_one_moment_for_all_pools_that_have_it(
    database: Database, pool: PoolKey
) -> None:
    other = await make_neighbour(database, pool, "other", instances=5)
    await make_neighbour(database, pool, "without schedules", instances=1)
    await schedule(database, pool.preset_id, other.preset_id)

    snapshot = await look(database, horizon=HOUR)

    edge = snapshot.moment.at.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + HOUR
    assert {at: set(ids) for at, ids in snapshot.changes.items()} == {edge: {pool.preset_id, other.preset_id}}


async def test_what_lies_beyond_the_horizon_is_left_to_the_tick(database: Database, pool: PoolKey) -> None:
    await schedule(database, pool.preset_id)

    assert (await look(database, horizon=timedelta(0))).changes == {}


async def test_a_paused_pool_has_no_edges(database: Database, pool: PoolKey) -> None:
    await schedule(database, pool.preset_id)
    await Passes(database, pool).set_template(paused_at=datetime.now(UTC))

    assert (await look(database, horizon=HOUR)).changes == {}


async def test_the_end_of_a_backoff_is_followed_without_a_tick(database: Database, pool: PoolKey) -> None:
    passes, hints = Passes(database, pool), Hints()
    replica = make_reconciler(database, config=Config(backoff_interval=timedelta(seconds=1)), hints=hints, tick=HOUR)
    await passes.run()
    await passes.fail(FailureClass.INFRASTRUCTURE)
    assert (await replica.run_pass(EVERYTHING)).backing_off == 1

    assert await hints.wakeups.wait(timedelta(seconds=10))

    assert (await replica.run_pass(hints.take())).created == 1


@pytest.mark.parametrize("ends_in", [timedelta(0), timedelta(milliseconds=30)], ids=["on the grain", "between"])
async def test_a_backoff_is_over_strictly_after_its_end(database: Database, pool: PoolKey, ends_in: timedelta) -> None:
    passes = Passes(database, pool)
    await passes.run()
    await passes.fail(FailureClass.INFRASTRUCTURE)
    queued_at = datetime.now(UTC).replace(microsecond=0) + ends_in
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Build).values(created_at=queued_at))

    (at,) = (await look(database, horizon=HOUR)).changes

    until = queued_at + Config().backoff_interval
    assert until < at <= until + timedelta(milliseconds=100)


async def test_a_moment_that_several_passes_foresee_has_one_timer() -> None:
    hints, at = Hints(), datetime.now(UTC)
    first, second = PresetId(UUID(int=1)), PresetId(UUID(int=2))
    hints.add_change(at, [first], after=timedelta(0))
    hints.add_change(at, [first, second], after=timedelta(0))

    assert await hints.wakeups.wait(timedelta(seconds=10))

    assert hints.take().preset_ids == {first, second}
    assert not await hints.wakeups.wait(timedelta(0))
