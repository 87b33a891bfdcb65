"""Totals of pool events are exact, whoever writes and folds meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import func, select, update

from prebuilds.domain.builds import FailureClass
from prebuilds.domain.claims import MissReason
from prebuilds.domain.ids import OrganizationId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.store import schema
from prebuilds.store.database import Database, open_database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.pool.totals import fold_events, read_totals
from prebuilds.store.pool_events import PoolEvent, record_pool_events
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction
from tests.support.builders import make_organization, make_pool, make_starting_prebuild
from tests.support.postgres import deadlocks

Figures: TypeAlias = Mapping[tuple[str, str, str, PoolEventKind, str], int]
"""By names of organisation, template and preset, kind and label."""


@pytest_asyncio.fixture
async def organization(database: Database) -> OrganizationId:
    return await make_organization(database)


@pytest_asyncio.fixture
async def pool(database: Database, organization: OrganizationId) -> PoolKey:
    return await make_pool(database, organization)


def event(
    pool: PoolKey, kind: PoolEventKind = PoolEventKind.CREATED, reason: str = "", fault: FailureClass | None = None
) -> PoolEvent:
    return PoolEvent(pool.organization_id, pool.template_id, pool.preset_name, kind, reason, fault)


async def record(database: Database, *events: PoolEvent) -> None:
    async with database.transaction("test") as tx:
        await record_pool_events(tx, events)


async def figures(tx: Transaction) -> Figures:
    return {
        (row.organization, template, preset, row.kind, row.label): total
        for row in await read_totals(tx)
        for (template, preset), total in row.totals.items()
    }


async def read(database: Database) -> Figures:
    async with database.read("test") as tx:
        return await figures(tx)


async def fold(database: Database, limit: int = 1_000) -> int:
    return await database.run("test", lambda tx: fold_events(tx, limit=limit))


async def test_misses_are_told_apart_by_reason_and_failures_by_class(database: Database, pool: PoolKey) -> None:
    await record(
        database,
        event(pool, PoolEventKind.CREATED, "below_target"),
        event(pool, PoolEventKind.CREATED, "retried"),
        event(pool, PoolEventKind.MISSED, MissReason.POOL_EMPTY),
        event(pool, PoolEventKind.MISSED, MissReason.ROTATING),
        event(pool, PoolEventKind.FAILED, "start failed", FailureClass.TEMPLATE),
    )

    assert await read(database) == {
        ("acme", "python-dev", "small", PoolEventKind.CREATED, ""): 2,
        ("acme", "python-dev", "small", PoolEventKind.MISSED, "pool_empty"): 1,
        ("acme", "python-dev", "small", PoolEventKind.MISSED, "rotating"): 1,
        ("acme", "python-dev", "small", PoolEventKind.FAILED, "template"): 1,
    }


async def test_folding_changes_no_figure(database: Database, pool: PoolKey) -> None:
    kinds = [random.choice(list(PoolEventKind)) for _ in range(50)]
    await record(database, *(event(pool, kind, "some reason") for kind in kinds))
    before = await read(database)

    folded = [await fold(database, 20) for _ in range(4)]

    assert folded == [20, 20, 10, 0]
    assert await read(database) == before
    await record(database, event(pool, kinds[0], "some reason"))
    assert sum((await read(database)).values()) == 51


async def test_a_fold_that_fails_counted_nothing(database: Database, pool: PoolKey) -> None:
    await record(database, event(pool), event(pool))

    async def fold_and_fail(tx: Transaction) -> None:
        assert await fold_events(tx, limit=1) == 1
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        await database.run("test", fold_and_fail)

    assert sum((await read(database)).values()) == 2
    assert await fold(database) == 2


async def test_a_folder_passes_over_what_another_holds(database: Database, pool: PoolKey) -> None:
    other = await make_pool(database, pool.organization_id, template="other")
    await record(database, event(pool), event(pool), event(other))

    async with database.transaction("one") as one:
        assert await fold_events(one, limit=2) == 2
        assert await fold(database) == 1
        assert sum((await read(database)).values()) == 3

    assert sum((await read(database)).values()) == 3
    assert await fold(database) == 0


async def test_a_template_made_again_goes_on_where_the_deleted_one_stopped(
    database: Database, organization: OrganizationId, pool: PoolKey
) -> None:
    await record(database, event(pool), event(pool))
    await fold(database)
    await record(database, event(pool))
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Template).values(deleted=True))
        # The builder's author of a template of this name.
        await tx.execute(update(schema.User).where(~schema.User.is_system).values(subject="renamed"))
    assert await read(database) == {}

    again = await make_pool(database, organization)
    await record(database, event(again))

    assert await read(database) == {("acme", "python-dev", "small", PoolEventKind.CREATED, ""): 4}


async def test_a_deleted_template_is_shown_until_its_last_prebuild_is_gone(database: Database, pool: PoolKey) -> None:
    await make_starting_prebuild(database, pool)
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Template).values(deleted=True))

    assert sum((await read(database)).values()) == 1

    async with database.transaction("test") as tx:
        await tx.run(b"DELETE FROM prebuilds")
    assert await read(database) == {}


async def test_events_written_while_two_fold_are_neither_lost_nor_doubled(
    database_url: str, database: Database, organization: OrganizationId
) -> None:
    pools = [await make_pool(database, organization, template=f"t{n}") for n in range(6)]
    kinds = [PoolEventKind.CREATED, PoolEventKind.CLAIMED, PoolEventKind.MISSED, PoolEventKind.DELETED]
    written: Counter[tuple[str, PoolEventKind]] = Counter()
    folded: Counter[Database] = Counter()
    looks = 0
    written_all = asyncio.Event()

    async def write(writer: Database, seed: int) -> None:
        """Write much, and go on until both have folded and somebody has looked meanwhile."""
        chance = random.Random(seed)
        rounds = 0
        while rounds < 60 or len(folded) < 2 or looks < 5:
            rounds += 1
            chosen = [(chance.randrange(6), chance.choice(kinds)) for _ in range(20)]
            await record(writer, *(event(pools[place], kind) for place, kind in chosen))
            written.update((f"t{place}", kind) for place, kind in chosen)

    async def keep_folding(folder: Database) -> None:
        while not written_all.is_set():
            if some := await fold(folder, 37):
                folded[folder] += some

    async def keep_reading() -> None:
        """Every snapshot is exact, and no figure ever falls."""
        nonlocal looks
        before: Figures = {}
        while not written_all.is_set():
            async with database.read("test", snapshot=True) as tx:
                seen = await figures(tx)
                events = await tx.scalar(select(func.count()).select_from(schema.PoolEvent))
            assert sum(seen.values()) == events
            assert all(seen[key] >= total for key, total in before.items())
            looks, before = looks + 1, seen

    async with open_database(database_url, min_size=1) as one, open_database(database_url, min_size=1) as other:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for folder in (one, other):
                group.create_task(keep_folding(folder))
            group.create_task(keep_reading())
            writers = [group.create_task(write(writer, seed)) for seed, writer in enumerate((one, other, one, other))]
            await asyncio.wait(writers)
            written_all.set()
        while await fold(one):
            pass

    seen = await read(database)
    assert {(template, kind): total for (_, template, _, kind, _), total in seen.items()} == written
    async with database.transaction("test") as tx:
        assert await tx.scalar(select(func.count()).where(~schema.PoolEvent.is_counted)) == 0
        assert await tx.scalar(select(func.sum(schema.PoolEventTotal.total))) == written.total()
    assert await deadlocks(database_url) == 0


async def test_folding_reads_no_history(database: Database, database_url: str, pool: PoolKey) -> None:
    for _ in range(5):
        await record(database, *[event(pool)] * 1_000)
    await fold(database, 5_000)
    await record(database, event(pool))

    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("VACUUM ANALYZE pool_events")
        for statement in ("fold_events", "totals"):
            cursor = await connection.execute(
                b"EXPLAIN " + SqlFolder("prebuilds.store.pool")[statement], {"limit": 1_000}
            )
            plan = "\n".join(line for (line,) in await cursor.fetchall())
            assert "ix_pool_events_uncounted" in plan
            assert "Seq Scan on pool_events" not in plan
