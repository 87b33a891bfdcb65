"""Transactions: what commits, what does not, and in what state a connection goes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from random import Random
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg import errors
from sqlalchemy import func, insert, select

from prebuilds.domain.events import EventKind
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.database import Database, open_database
from prebuilds.store.faults import constraint_of
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.outbox.writer import append
from prebuilds.store.schema import Organization
from prebuilds.store.transactions import Isolation, Transaction
from tests.support.waiting import eventually, until_blocked

NAMES = b"SELECT name FROM organizations ORDER BY name"
ADD = b"INSERT INTO organizations (name) VALUES (%(name)s)"


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with a single connection, so that the next transaction gets what the last left."""
    async with open_database(database_url, pool_size=1, wait_for_connection=timedelta(seconds=2)) as opened:
        yield opened


@pytest_asyncio.fixture
async def beside(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection of the test's own, to look from outside."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


async def _names(connection: psycopg.AsyncConnection) -> list[str]:
    return [name for (name,) in await (await connection.execute(NAMES)).fetchall()]


async def _terms(tx: Transaction) -> tuple[str, str, str]:
    cursor = await tx.run(
        b"SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'),"
        b" current_setting('statement_timeout')"
    )
    isolation, read_only, timeout = (await cursor.fetchall())[0]
    return isolation, read_only, timeout


async def test_what_was_written_is_there_after_the_end(database: Database, beside: psycopg.AsyncConnection) -> None:
    async with database.transaction("write") as tx:
        await tx.run(ADD, {"name": "one"})
        await tx.run(ADD, {"name": "two"})
        assert await _names(beside) == []

    assert await _names(beside) == ["one", "two"]


async def test_an_exception_undoes_everything_and_goes_on(database: Database, beside: psycopg.AsyncConnection) -> None:
    async def write_and_fail() -> None:
        async with database.transaction("write") as tx:
            await tx.run(ADD, {"name": "one"})
            await tx.execute(insert(Organization).values(name="two"))
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await write_and_fail()

    assert await _names(beside) == []


async def test_both_kinds_of_statement_share_the_transaction(
    database: Database, beside: psycopg.AsyncConnection
) -> None:
    async with database.transaction("write") as tx:
        await tx.run(ADD, {"name": "by psycopg"})
        await tx.execute(insert(Organization).values(name="by sqlalchemy"))
        seen = (await tx.execute(select(Organization.name).order_by(Organization.name))).scalars().all()
        assert seen == ["by psycopg", "by sqlalchemy"]
        assert await tx.fetch_all(NAMES, row=str) == seen
        assert await tx.scalar(select(func.pg_backend_pid())) == tx.backend_pid
        assert await _names(beside) == []

    assert await _names(beside) == ["by psycopg", "by sqlalchemy"]


async def test_a_typed_statement_may_come_first_and_alone(database: Database, beside: psycopg.AsyncConnection) -> None:
    async with database.transaction("write") as tx:
        await tx.execute(insert(Organization).values(name="one"))

    assert await _names(beside) == ["one"]


async def test_a_notice_is_logged_once_however_often_the_connection_was_used(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sqlalchemy.dialects.postgresql")
    for _ in range(3):
        async with database.transaction("read") as tx:
            await tx.scalar(select(func.count()).select_from(Organization))

    async with database.transaction("speak") as tx:
        await tx.run(b"DO $$ BEGIN RAISE NOTICE 'said'; END $$")

    assert [record.message for record in caplog.records if "said" in record.message] == ["NOTICE: said"]


async def test_a_transaction_without_a_statement_sends_nothing(
    database: Database, beside: psycopg.AsyncConnection
) -> None:
    async with database.transaction("idle") as tx:
        cursor = await beside.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [tx.backend_pid])
        assert await cursor.fetchone() == ("idle",)


@pytest.mark.parametrize("typed", [False, True], ids=["psycopg first", "sqlalchemy first"])
async def test_terms_hold_for_their_transaction_only(database: Database, typed: bool) -> None:
    async with database.transaction(
        "terms", isolation=Isolation.SERIALIZABLE, read_only=True, timeout=timedelta(seconds=1.5)
    ) as tx:
        if typed:
            await tx.scalar(select(func.count()).select_from(Organization))
        assert await _terms(tx) == ("serializable", "on", "1500ms")

    async with database.transaction("plain") as tx:
        assert await _terms(tx) == ("read committed", "off", "0")

    async with database.read("snapshot", snapshot=True) as tx:
        assert await _terms(tx) == ("repeatable read", "on", "0")

    async with database.transaction("plain") as tx:
        assert await _terms(tx) == ("read committed", "off", "0")


async def test_a_snapshot_sees_one_moment(database: Database, beside: psycopg.AsyncConnection) -> None:
    async with database.read("look", snapshot=True) as tx:
        assert await tx.fetch_all(NAMES, row=str) == []
        await beside.execute(ADD, {"name": "late"})
        assert await tx.fetch_all(NAMES, row=str) == []


async def test_a_read_writes_nothing(database: Database) -> None:
    async def write() -> None:
        async with database.read("look") as tx:
            await tx.fetch_all(NAMES, row=str)
            await tx.run(ADD, {"name": "one"})

    with pytest.raises(errors.ReadOnlySqlTransaction):
        await write()


async def test_times_are_utc_and_the_isolation_of_the_session_is_read_committed(database: Database) -> None:
    async with database.transaction("look") as tx:
        cursor = await tx.run(b"SELECT current_setting('timezone'), current_setting('default_transaction_isolation')")
        assert await cursor.fetchall() == [("UTC", "read committed")]


async def test_a_constraint_has_its_name_whichever_way_the_statement_went(database: Database) -> None:
    async def twice(*, typed: bool) -> None:
        async with database.transaction("write") as tx:
            await tx.run(ADD, {"name": "one"})
            if typed:
                await tx.execute(insert(Organization).values(name="one"))
            else:
                await tx.run(ADD, {"name": "one"})

    for typed in (False, True):
        with pytest.raises(errors.UniqueViolation) as caught:
            await twice(typed=typed)
        assert constraint_of(caught.value) == "uq_organizations_name_live"


async def _add_within_savepoint(tx: Transaction) -> None:
    async with tx.savepoint():
        await append(tx, EventKind.CLAIMED, uuid4(), organization_id=None)
        await tx.run(ADD, {"name": "one"})


async def test_a_savepoint_undoes_its_own_part_only(database: Database, beside: psycopg.AsyncConnection) -> None:
    committed: list[OutboxRow] = []
    database.on_commit(committed.extend)
    subject = uuid4()
    async with database.transaction("write") as tx:
        await tx.run(ADD, {"name": "one"})
        with pytest.raises(errors.UniqueViolation):
            await _add_within_savepoint(tx)
        await tx.execute(insert(Organization).values(name="two"))
        await append(tx, EventKind.CLAIMED, subject, organization_id=None)

    assert await _names(beside) == ["one", "two"]
    assert [row.subject_id for row in committed] == [subject]


async def test_a_swallowed_error_is_no_commit(database: Database, beside: psycopg.AsyncConnection) -> None:
    async def swallow() -> None:
        async with database.transaction("write") as tx:
            await tx.run(ADD, {"name": "one"})
            with pytest.raises(errors.UniqueViolation):
                await tx.run(ADD, {"name": "one"})

    with pytest.raises(errors.InFailedSqlTransaction):
        await swallow()

    assert await _names(beside) == []


async def test_the_sink_has_the_events_after_the_commit_and_not_before(
    database: Database, beside: psycopg.AsyncConnection
) -> None:
    handed: list[Sequence[OutboxRow]] = []
    database.on_commit(handed.append)
    workspace, organization = uuid4(), uuid4()

    async with database.transaction("claim") as tx:
        await append(
            tx,
            EventKind.CLAIMED,
            workspace,
            organization_id=organization,
            payload={"generation": 1},
            traceparent="00-a",
        )
        assert handed == []

    ((row,),) = handed
    assert (row.event, row.subject_id, row.organization_id) == (EventKind.CLAIMED, workspace, organization)
    assert (row.payload, row.traceparent) == ({"generation": 1}, "00-a")
    cursor = await beside.execute("SELECT id, event, payload, traceparent FROM outbox")
    assert await cursor.fetchall() == [(row.id, "claimed", {"generation": 1}, "00-a")]


async def test_the_sink_has_nothing_of_a_rollback(database: Database) -> None:
    handed: list[Sequence[OutboxRow]] = []
    database.on_commit(handed.append)

    async def fail() -> None:
        async with database.transaction("claim") as tx:
            await append(tx, EventKind.CLAIMED, uuid4(), organization_id=None)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with database.transaction("other") as tx:
        await tx.run(NAMES)

    assert handed == []


async def test_events_carry_the_trace_of_their_moment(database_url: str) -> None:
    handed: list[OutboxRow] = []
    async with open_database(database_url, pool_size=1, trace_context=lambda: "00-from-the-port") as database:
        database.on_commit(handed.extend)
        async with database.transaction("claim") as tx:
            await append(tx, EventKind.CLAIMED, uuid4(), organization_id=None)

    assert [row.traceparent for row in handed] == ["00-from-the-port"]


async def test_the_last_statement_takes_the_commit_along(database: Database, beside: psycopg.AsyncConnection) -> None:
    async with database.transaction("write") as tx:
        await tx.run(ADD, {"name": "one"})
        await tx.run(ADD, {"name": "two"}, last=True)
        assert await _names(beside) == ["one", "two"]
        with pytest.raises(AssertionError):
            await tx.run(ADD, {"name": "three"})


async def test_a_last_statement_that_fails_commits_nothing(database: Database, beside: psycopg.AsyncConnection) -> None:
    async def fail() -> None:
        async with database.transaction("write", timeout=timedelta(seconds=1)) as tx:
            await tx.run(ADD, {"name": "one"})
            await tx.run(ADD, {"name": "one"}, last=True)

    with pytest.raises(errors.UniqueViolation):
        await fail()

    assert await _names(beside) == []
    assert await database.fetch_once("count", b"SELECT count(*) FROM organizations", row=int) == [0]


async def test_a_commit_that_fails_on_its_way_with_a_statement_is_seen(database: Database) -> None:
    await database.run_once("ddl", b"CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    async def twice() -> None:
        async with database.transaction("write") as tx:
            await tx.run(b"INSERT INTO late VALUES (1)")
            await tx.run(b"INSERT INTO late VALUES (1)", last=True)

    with pytest.raises(errors.UniqueViolation):
        await twice()

    assert await database.fetch_once("count", b"SELECT count(*) FROM late", row=int) == [0]


@pytest.mark.parametrize("timeout", [None, timedelta(seconds=1)])
async def test_one_statement_is_its_own_transaction(
    database: Database, beside: psycopg.AsyncConnection, timeout: timedelta | None
) -> None:
    assert await database.run_once("add", ADD, {"name": "one"}, timeout=timeout) == 1
    assert await database.fetch_once("names", NAMES, row=str, timeout=timeout) == ["one"]
    assert await _names(beside) == ["one"]


class Colour(StrEnum):
    """Words of a column."""

    RED = "red"


@dataclass(frozen=True, slots=True)
class Painted:
    """A row."""

    id: UUID
    colour: Colour
    second: Colour | None
    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None = None


async def test_rows_come_as_values_with_words_and_tuples(database: Database) -> None:
    async with database.transaction("look") as tx:
        row = await tx.fetch_one(
            b"SELECT ARRAY['a', 'b'] AS names, 'red' AS colour, NULL::text AS second, %(id)s::uuid AS id,"
            b" ARRAY['red'] AS colours",
            {"id": UUID(int=7)},
            row=Painted,
        )
        none = await tx.fetch_one(b"SELECT 'red' AS colour WHERE false", row=Painted)

    assert row is not None
    assert row == Painted(UUID(int=7), Colour.RED, None, ("a", "b"), (Colour.RED,))
    assert isinstance(row.colour, Colour)
    assert none is None


async def test_a_column_that_the_row_does_not_have_is_named(database: Database) -> None:
    async with database.transaction("look") as tx:
        with pytest.raises(TypeError, match=r"Painted has no fields for the columns .*surprise"):
            await tx.fetch_one(b"SELECT 1 AS surprise", row=Painted)


async def test_a_deadlock_is_done_again_as_a_whole(database_url: str, beside: psycopg.AsyncConnection) -> None:
    await beside.execute("INSERT INTO organizations (name) VALUES ('a'), ('b')")
    starts: list[str] = []
    locked: list[str] = []
    both_locked = asyncio.Event()
    handed: list[OutboxRow] = []

    async with open_database(database_url, pool_size=2) as database:
        database.on_commit(handed.extend)

        async def change(first: str, second: str, tx: Transaction) -> None:
            starts.append(first)
            await append(tx, EventKind.CLAIMED, UUID(int=len(starts)), organization_id=None)
            await tx.run(_TOUCH, {"name": first})
            locked.append(first)
            if len(locked) == 2:
                both_locked.set()
            await both_locked.wait()
            await tx.run(_TOUCH, {"name": second})

        async with asyncio.TaskGroup() as group:
            group.create_task(database.run("forwards", lambda tx: change("a", "b", tx)))
            group.create_task(database.run("backwards", lambda tx: change("b", "a", tx)))

    assert len(starts) == 3
    assert len(handed) == 2
    cursor = await beside.execute("SELECT name, display_name FROM organizations ORDER BY name")
    assert await cursor.fetchall() == [("a", "touched"), ("b", "touched")]


_TOUCH = b"UPDATE organizations SET display_name = 'touched' WHERE name = %(name)s"


async def test_a_conflict_that_comes_three_times_is_refused(
    database: Database, beside: psycopg.AsyncConnection
) -> None:
    await beside.execute("INSERT INTO organizations (name) VALUES ('a')")
    tries = 0

    async def lose(tx: Transaction) -> None:
        nonlocal tries
        tries += 1
        await tx.run(NAMES)
        await beside.execute("UPDATE organizations SET display_name = %s", [str(tries)])
        await tx.run(_TOUCH, {"name": "a"})

    with pytest.raises(Refusal) as caught:
        await database.run("lose", lose, isolation=Isolation.REPEATABLE_READ)

    assert caught.value.reason is Reason.TRANSACTION_CONFLICT
    assert tries == 3


async def test_a_refusal_of_the_work_is_not_tried_again(database: Database) -> None:
    tries = 0

    async def refuse(tx: Transaction) -> None:
        nonlocal tries
        tries += 1
        await tx.run(NAMES)
        raise Refusal(Reason.TRANSACTION_CONFLICT, "my own")

    with pytest.raises(Refusal, match="my own"):
        await database.run("refuse", refuse)

    assert tries == 1


@pytest.mark.parametrize("typed", [False, True], ids=["psycopg", "sqlalchemy"])
@pytest.mark.parametrize("first", [False, True], ids=["in the middle", "first statement"])
async def test_cancellation_passes_and_leaves_a_clean_connection(
    database: Database, beside: psycopg.AsyncConnection, typed: bool, first: bool
) -> None:
    pids: list[int] = []

    async def sleep() -> None:
        async with database.transaction("sleep", timeout=timedelta(minutes=1)) as tx:
            pids.append(tx.backend_pid)
            if not first:
                await tx.run(ADD, {"name": "never"})
            if typed:
                await tx.execute(select(func.pg_sleep(60)))
            else:
                await tx.run(b"SELECT pg_sleep(60)")

    task = asyncio.create_task(sleep())

    async def sleeps() -> bool:
        cursor = await beside.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = ANY(%s)", [pids])
        return await cursor.fetchall() == [("PgSleep",)]

    await eventually(sleeps)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with database.transaction("next") as tx:
        assert tx.backend_pid == pids[0], "the connection is still good"
        assert await _terms(tx) == ("read committed", "off", "0")
        assert await tx.scalar(select(func.count()).select_from(Organization)) == 0
    assert await _names(beside) == []


async def test_cancellation_while_waiting_for_a_lock_frees_the_line(
    database: Database, beside: psycopg.AsyncConnection, database_url: str
) -> None:
    await beside.execute("INSERT INTO organizations (name) VALUES ('a')")
    pids: list[int] = []

    async def change() -> None:
        async with database.transaction("change") as tx:
            pids.append(tx.backend_pid)
            await tx.run(_TOUCH, {"name": "a"})

    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute("SELECT 1 FROM organizations FOR UPDATE")
        task = asyncio.create_task(change())
        await eventually(lambda: len(pids))
        await until_blocked(beside, pids[0])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cursor = await beside.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pids[0]])
        assert await cursor.fetchone() == ("idle",)


async def test_no_cancellation_is_swallowed_and_no_connection_lost(database_url: str) -> None:
    random = Random(7)
    loop = asyncio.get_running_loop()
    async with open_database(database_url, pool_size=4) as database:

        async def work() -> None:
            async with database.transaction("work", timeout=random.choice([None, timedelta(seconds=9)])) as tx:
                if random.random() < 0.5:
                    await tx.run(b"SELECT 1")
                if random.random() < 0.3:
                    await tx.execute(select(1))
                await tx.run(ADD, {"name": str(uuid4())}, last=random.random() < 0.5)

        for _ in range(400):
            tasks = [asyncio.create_task(work()) for _ in range(6)]
            asked: set[asyncio.Task[None]] = set()

            def cancel(task: asyncio.Task[None], asked: set[asyncio.Task[None]] = asked) -> None:
                if task.cancel():
                    asked.add(task)

            for task in tasks:
                loop.call_later(random.random() * 0.006, cancel, task)
            await asyncio.wait(tasks)
            for task in tasks:
                assert task.cancelled() or (task not in asked and task.exception() is None)

        busy = [database.fetch_once("busy", b"SELECT pg_backend_pid() FROM pg_sleep(0.3)", row=int) for _ in range(4)]
        assert len({pid for (pid,) in await asyncio.gather(*busy)}) == 4
