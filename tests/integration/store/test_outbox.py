"""The outbox: appended in sets, leased by several sweepers at once, gone when published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest_asyncio

from prebuilds.domain.events import EventKind
from prebuilds.store.database import Database, open_database
from prebuilds.store.outbox import sweep
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.outbox.writer import Event, append_many

NOW = timedelta(0)
LONG = timedelta(minutes=1)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with connections for several sweepers."""
    async with open_database(database_url, pool_size=6) as opened:
        yield opened


async def _append(database: Database, count: int) -> list[OutboxRow]:
    async with database.transaction("append") as tx:
        events = [Event(EventKind.JOB_QUEUED, uuid4(), None, {"number": number}) for number in range(count)]
        await append_many(tx, events)
        return list(tx.appended)


async def _lease(
    database: Database, *, older_than: timedelta = NOW, lease_for: timedelta = LONG, limit: int = 100
) -> list[OutboxRow]:
    async with database.transaction("lease") as tx:
        return await sweep.lease(tx, older_than=older_than, lease_for=lease_for, limit=limit)


async def test_a_leased_row_is_the_row_that_was_written(database: Database) -> None:
    organization = uuid4()
    async with database.transaction("append") as tx:
        await append_many(
            tx, [Event(EventKind.CLAIMED, uuid4(), organization, {"generation": 2, "name": "x"})], traceparent="00-t"
        )
    (written,) = tx.appended

    (leased,) = await _lease(database)

    assert leased == written
    assert (leased.event, leased.organization_id) == (EventKind.CLAIMED, organization)
    assert (leased.payload, leased.traceparent) == ({"generation": 2, "name": "x"}, "00-t")


async def test_each_appended_row_has_its_own_time_by_the_databases_clock(database: Database) -> None:
    written = await _append(database, 3)

    assert [(row.id, row.created_at) for row in await _lease(database)] == [(row.id, row.created_at) for row in written]


async def test_many_sweepers_share_the_rows_and_none_is_leased_twice(database: Database) -> None:
    written = {row.id for row in await _append(database, 300)}

    async def sweeper() -> list[UUID]:
        mine: list[UUID] = []
        while rows := await _lease(database, limit=7):
            mine += [row.id for row in rows]
        return mine

    shares = await asyncio.gather(*(sweeper() for _ in range(6)))

    leased = [each for share in shares for each in share]
    assert len(leased) == 300
    assert set(leased) == written


async def test_rows_that_another_sweeper_is_leasing_are_passed_over(database: Database) -> None:
    await _append(database, 4)
    async with database.transaction("first") as tx:
        first = await sweep.lease(tx, older_than=NOW, lease_for=LONG, limit=2)
        second = await _lease(database)

    assert len(first) == len(second) == 2
    assert not {row.id for row in first} & {row.id for row in second}


async def test_a_lease_that_is_over_is_given_again(database: Database) -> None:
    await _append(database, 1)

    assert len(await _lease(database, lease_for=timedelta(milliseconds=-1))) == 1
    assert len(await _lease(database)) == 1
    assert await _lease(database) == []


async def test_a_young_row_is_left_to_the_process_that_wrote_it(database: Database) -> None:
    await _append(database, 1)

    assert await _lease(database, older_than=timedelta(seconds=30)) == []


async def test_the_oldest_come_first(database: Database) -> None:
    rows = [row for _ in range(3) for row in await _append(database, 1)]

    assert [row.id for row in await _lease(database, limit=2)] == [row.id for row in rows[:2]]


async def test_removed_rows_are_gone_and_counted(database: Database) -> None:
    rows = await _append(database, 3)
    async with database.transaction("remove") as tx:
        assert await sweep.remove(tx, [rows[0].id, rows[1].id, uuid4()]) == 2
        assert await sweep.remove(tx, []) == 0

    assert [row.id for row in await _lease(database)] == [rows[2].id]


async def test_the_age_of_the_oldest_row_is_known(database: Database) -> None:
    async with database.transaction("age") as tx:
        assert await sweep.oldest_age(tx) is None
    await _append(database, 2)
    async with database.transaction("age") as tx:
        age = await sweep.oldest_age(tx)
    assert age is not None
    assert NOW < age < timedelta(seconds=30)
