"""A template's bound on how many of its prebuilds start at once, and who is told when a place comes free."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
import pytest_asyncio

from prebuilds.reconciler.queries.pools import Extent, find_pools
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.store.database import Database
from prebuilds.store.sql import SqlFolder
from tests.support.builders import make_organization, make_pool
from tests.support.pools import Passes, count_tries, make_neighbour, make_reconciler, pools_told_of

PLACES = 5
PRESETS = 10


@pytest_asyncio.fixture
async def pools(database: Database) -> list[Passes]:
    """Ten pools of five of one template that lets five start at once."""
    first = await make_pool(database, await make_organization(database), instances=PLACES)
    others = [await make_neighbour(database, first, f"p{number}", instances=PLACES) for number in range(1, PRESETS)]
    pools = [Passes(database, pool) for pool in (first, *others)]
    await pools[0].set_template(max_starting=PLACES)
    return pools


async def starting(pools: list[Passes]) -> list[int]:
    """How many of each pool are starting, most first."""
    return sorted([len(await each.jobs()) for each in pools], reverse=True)


async def test_presets_of_a_template_share_its_places_in_one_pass(
    pools: list[Passes], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = count_tries(monkeypatch, database)

    statistics = await make_reconciler(database, concurrency=5).run_pass(EVERYTHING)

    assert sum(await starting(pools)) == statistics.created == PLACES
    assert (statistics.seen, statistics.skipped, statistics.reconciled) == (PRESETS, PRESETS - 1, 1)
    assert len(tries) == 1, "nothing is tried for a place that is handed out"


async def test_each_place_is_handed_out_once(pools: list[Passes], database: Database) -> None:
    for each in pools:
        await each.set_preset(desired_instances=2)

    assert (await make_reconciler(database, concurrency=5).run_pass(EVERYTHING)).created == PLACES

    assert await starting(pools) == [2, 2, 1, *[0] * 7]


async def test_passes_of_one_process_share_the_places(pools: list[Passes], database: Database) -> None:
    replica = make_reconciler(database, concurrency=5)

    await asyncio.gather(*(replica.run_pass(EVERYTHING) for _ in range(4)))

    assert sum(await starting(pools)) == PLACES


async def test_places_that_come_free_are_taken_by_presets_that_waited_for_them(
    pools: list[Passes], database: Database
) -> None:
    replica = make_reconciler(database)
    await replica.run_pass(EVERYTHING)
    (first,) = [each for each in pools if await each.jobs()]
    told: list[Extent] = []
    database.on_commit(lambda rows: told.extend(pools_told_of(row) for row in rows))

    await first.end(most=1)

    hinted = Extent()
    for extent in told:
        hinted |= extent
    assert hinted.preset_ids == {first.pool.preset_id}
    statistics = await replica.run_pass(hinted)
    assert (statistics.seen, statistics.created) == (PRESETS, 1)
    assert len(await first.jobs()) == PLACES - 1


async def test_without_a_bound_a_build_that_ends_concerns_its_own_pool(pools: list[Passes], database: Database) -> None:
    await pools[0].set_template(max_starting=None)
    its_pool = frozenset({pools[0].pool.preset_id})

    async with database.read("test") as tx:
        assert await find_pools(tx, Extent(preset_ids=its_pool, neighbours_of=its_pool)) == list(its_pool)


async def test_the_pools_of_hints_are_found_by_indexes(pools: list[Passes], database: Database) -> None:
    ids: dict[str, list[UUID]] = {name: [] for name in ("template_ids", "organization_ids", "workspace_ids")}
    one = [pools[0].pool.preset_id]
    async with database.transaction("test") as tx:
        await tx.run(b"SET LOCAL enable_seqscan = off")
        statement = b"EXPLAIN " + SqlFolder("prebuilds.reconciler.queries")["pool_ids"]
        cursor = await tx.run(statement, {"preset_ids": one, "neighbours_of": one, **ids})
        plan = "\n".join(line for (line,) in await cursor.fetchall())

    assert "Seq Scan" not in plan
    assert "ix_presets_over_quota" in plan
    assert "Index Cond: (version_id = bounded.active_version_id)" in plan
