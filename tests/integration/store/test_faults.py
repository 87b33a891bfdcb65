"""What broke leaves a transaction as a refusal with a reason, and without a word of the driver's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
import pytest_asyncio
from psycopg import errors
from sqlalchemy import func, select

from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.database import Database, open_database
from prebuilds.store.faults import refusal_for
from tests.support.postgres import scratch_server
from tests.support.waiting import eventually


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with a single connection."""
    async with open_database(database_url, pool_size=1, wait_for_connection=timedelta(seconds=1)) as opened:
        yield opened


@pytest_asyncio.fixture
async def beside(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection of the test's own."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("typed", [False, True], ids=["psycopg", "sqlalchemy"])
@pytest.mark.parametrize("begun", [False, True], ids=["first statement", "in the middle"])
async def test_a_connection_that_is_lost_is_unavailable_and_replaced(
    database: Database, beside: psycopg.AsyncConnection, typed: bool, begun: bool
) -> None:
    async def lose() -> None:
        async with database.transaction("lose") as tx:
            if begun:
                await tx.execute(select(1))
            await beside.execute("SELECT pg_terminate_backend(%s, 5000)", [tx.backend_pid])
            if typed:
                await tx.execute(select(1))
            else:
                await tx.run(b"SELECT 1")

    with pytest.raises(Refusal) as caught:
        await lose()

    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert caught.value.retry_after == timedelta(seconds=1)
    assert await database.fetch_once("again", b"SELECT 1", row=int) == [1]


async def test_a_connection_that_is_lost_before_the_commit_is_unavailable(
    database: Database, beside: psycopg.AsyncConnection
) -> None:
    async def lose() -> None:
        async with database.transaction("lose") as tx:
            await tx.run(b"INSERT INTO organizations (name) VALUES ('one')")
            await beside.execute("SELECT pg_terminate_backend(%s, 5000)", [tx.backend_pid])

    with pytest.raises(Refusal) as caught:
        await lose()

    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    cursor = await beside.execute("SELECT count(*) FROM organizations")
    assert await cursor.fetchone() == (0,)


async def test_a_transaction_that_stands_still_is_ended_and_its_locks_with_it(
    database_url: str, beside: psycopg.AsyncConnection
) -> None:
    async def stand_still(database: Database) -> None:
        async with database.transaction("stand still") as tx:
            pid = tx.backend_pid
            # Two: after a pipeline, in which the first statement travels, Postgres does not look at the clock.
            await tx.run(b"SELECT FROM users FOR UPDATE")
            await tx.run(b"SELECT 1")
            query = "SELECT FROM pg_stat_activity WHERE pid = %s"
            await eventually(lambda: _found_nothing(beside, query, pid), what="Postgres has ended it")
            await tx.run(b"SELECT 1")

    # As a program connects, but for a time that a test does not live to see; the URL's own options win.
    async with open_database(f"{database_url}&options=-c%20idle_in_transaction_session_timeout%3D50ms") as database:
        with pytest.raises(Refusal) as caught:
            await stand_still(database)

    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    await beside.execute("SELECT FROM users FOR UPDATE NOWAIT")


async def test_programs_bound_how_long_postgres_keeps_their_locks_when_they_are_gone(database: Database) -> None:
    names = ["client_connection_check_interval", "idle_in_transaction_session_timeout"]
    query = b"SELECT setting::int FROM pg_settings WHERE name = ANY(%(names)s) ORDER BY name"
    assert await database.fetch_once("settings", query, {"names": names}, row=int) == [2_000, 60_000]


async def test_after_one_loss_the_other_idle_connections_are_checked_before_use(
    database_url: str, beside: psycopg.AsyncConnection
) -> None:
    async with open_database(database_url, pool_size=4) as database:
        sleeps = [database.fetch_once("warm", b"SELECT pg_backend_pid() FROM pg_sleep(0.1)", row=int) for _ in range(4)]
        pids = [pid for (pid,) in await asyncio.gather(*sleeps)]
        assert len(set(pids)) == 4
        await beside.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::int[]) AS pid", [pids])

        with pytest.raises(Refusal):
            await database.fetch_once("first", b"SELECT 1", row=int)

        for _ in range(8):
            assert await database.fetch_once("later", b"SELECT 1", row=int) == [1]


async def test_a_server_that_became_a_replica_is_unavailable_and_left(
    database: Database, beside: psycopg.AsyncConnection
) -> None:
    (pid,) = await database.fetch_once("before", b"SELECT pg_backend_pid()", row=int)

    async def write() -> None:
        async with database.transaction("write") as tx:
            await tx.run(b"SET LOCAL transaction_read_only = on")
            await tx.run(b"INSERT INTO organizations (name) VALUES ('one')")

    with pytest.raises(Refusal) as caught:
        await write()

    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert await database.fetch_once("after", b"SELECT pg_backend_pid()", row=int) != [pid]


async def test_no_free_connection_is_unavailable(database_url: str) -> None:
    async with (
        open_database(database_url, pool_size=1, wait_for_connection=timedelta(milliseconds=50)) as database,
        database.transaction("holds it") as tx,
    ):
        await tx.run(b"SELECT 1")
        with pytest.raises(Refusal) as caught:
            await database.fetch_once("waits", b"SELECT 1", row=int)

    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE


@pytest.mark.parametrize("typed", [False, True], ids=["psycopg", "sqlalchemy"])
async def test_a_statement_that_takes_too_long_is_past_its_deadline(database: Database, typed: bool) -> None:
    async def dawdle() -> None:
        async with database.transaction("dawdle", timeout=timedelta(milliseconds=30)) as tx:
            if typed:
                await tx.execute(select(func.pg_sleep(10)))
            else:
                await tx.run(b"SELECT pg_sleep(10)")

    with pytest.raises(Refusal) as caught:
        await dawdle()

    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert await database.fetch_once("next", b"SELECT 1 FROM pg_sleep(0.1)", row=int) == [1]


async def test_a_deadline_that_is_over_sends_nothing(database: Database) -> None:
    async def late() -> None:
        async with database.transaction("late", timeout=timedelta(seconds=-1)) as tx:
            await tx.run(b"SELECT 1")

    with pytest.raises(Refusal) as caught:
        await late()

    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


async def test_no_statement_takes_longer_than_the_caller_still_waits(database_url: str) -> None:
    left: list[timedelta | None] = [timedelta(milliseconds=30)]

    async with open_database(database_url, pool_size=1, remaining_time=lambda: left[0]) as database:
        with pytest.raises(Refusal) as caught:
            await database.fetch_once("dawdle", b"SELECT 1 FROM pg_sleep(10)", row=int, timeout=timedelta(minutes=1))
        left[0] = None
        assert await database.fetch_once("in nobody's name", b"SELECT 1 FROM pg_sleep(0.1)", row=int) == [1]

    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


async def test_an_operator_who_cancels_a_query_is_no_deadline(
    database: Database, beside: psycopg.AsyncConnection
) -> None:
    pids: list[int] = []

    async def dawdle() -> None:
        async with database.transaction("dawdle") as tx:
            pids.append(tx.backend_pid)
            await tx.run(b"SELECT pg_sleep(10)")

    task = asyncio.create_task(dawdle())

    async def cancelled() -> bool:
        await beside.execute("SELECT pg_cancel_backend(pid) FROM unnest(%s::int[]) AS pid", [pids])
        return task.done()

    await eventually(cancelled)
    with pytest.raises(errors.QueryCanceled):
        await task


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async def open_it() -> None:
        url = "postgresql://postgres:secret@/nowhere?host=/nonexistent"
        async with open_database(url, pool_size=1, wait_for_connection=timedelta(milliseconds=200)):
            pass

    with pytest.raises(Refusal) as caught:
        await open_it()

    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert "secret" not in caught.value.message
    assert "nonexistent" not in caught.value.message


async def test_a_server_that_comes_back_is_used_again() -> None:
    with scratch_server() as server:
        async with open_database(server.url(), pool_size=2, wait_for_connection=timedelta(seconds=10)) as database:
            server.stop()
            with pytest.raises(Refusal) as caught:
                await database.fetch_once("away", b"SELECT 1", row=int)
            assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
            server.start()
            assert await database.fetch_once("back", b"SELECT 1", row=int) == [1]


def test_what_is_no_fault_of_the_database_stays_as_it_is() -> None:
    assert refusal_for(LookupError()) is None
    assert refusal_for(errors.UniqueViolation("secret value")) is None
    assert refusal_for(psycopg.ProgrammingError("a mistake of ours")) is None


async def _found_nothing(beside: psycopg.AsyncConnection, query: LiteralString, *params: object) -> bool:
    return (await beside.execute(query, params)).rowcount == 0
