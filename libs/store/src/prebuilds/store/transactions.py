"""A transaction: the argument `tx` of every writer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, TypeVarTuple, cast, overload

import psycopg
from psycopg import AsyncCursor, errors
from psycopg.abc import QueryNoTemplate
from psycopg.pq import TransactionStatus
from psycopg.rows import AsyncRowFactory, TupleRow, tuple_row
from sqlalchemy import CursorResult, Executable
from sqlalchemy.engine.interfaces import CoreExecuteOptionsParameter
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import TypedReturnsRows

from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.connections import Connections, PooledConnection
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.rows import rows_of

if TYPE_CHECKING:
    from prebuilds.store.database import Database

T = TypeVar("T")
Columns = TypeVarTuple("Columns")

Params: TypeAlias = Mapping[str, Any]
"""Values of named parameters; Any, because psycopg adapts whatever it has a dumper for."""


class Isolation(StrEnum):
    """Isolation levels; writing transactions are READ COMMITTED (design section 5)."""

    READ_COMMITTED = "READ COMMITTED"
    REPEATABLE_READ = "REPEATABLE READ"
    SERIALIZABLE = "SERIALIZABLE"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a transaction was opened with."""

    isolation: Isolation = Isolation.READ_COMMITTED
    read_only: bool = False
    timeout: timedelta | None = None
    """How long each of its statements may take, waiting for locks included."""

    def preamble(self) -> tuple[bytes, ...]:
        """Give what is sent before the first statement."""
        level = b"" if self.isolation is Isolation.READ_COMMITTED else b" ISOLATION LEVEL " + self.isolation.encode()
        begin = b"BEGIN" + level + (b" READ ONLY" if self.read_only else b"")
        if self.timeout is None:
            return (begin,)
        milliseconds = math.ceil(self.timeout / timedelta(milliseconds=1))
        if milliseconds <= 0:  # To Postgres 0 is no limit at all.
            raise Refusal(Reason.DEADLINE_EXCEEDED, "the time for it was over before it began")
        return (begin, b"SET LOCAL statement_timeout = %d" % milliseconds)


_PLAIN: Final = Terms()


class Transaction:
    """One transaction on one connection; begun with its first statement, committed when its `async with` ends well.

    **Nothing but the database is awaited inside.** Whoever takes `tx` neither commits nor opens another.

    **Lock order** (design section 5), for every transaction, several rows of a table by id::

        requests, advisory locks (organisation, line), organizations, templates, presets, quota_usage, prebuilds,
        waiting, workspaces, builds, jobs, agents, gateways, claims, outbox

    Who starts from the other end (a completion knows the job) finds the ids without locks, then locks in this order.
    Lock first, recheck in a **later** statement: a statement's snapshot is older than the locks it waits for. One
    statement does not order its own locks: each locking CTE reads the RETURNING of the one before it.

    Hot statements go through `run`, `fetch_all` and `fetch_one`, straight to psycopg; `execute` and `scalar` take
    SQLAlchemy's typed statements, over the same connection in the same transaction. Both raise psycopg's exceptions, so
    that a constraint's name becomes a refusal beside the statement that can hit it (`faults.constraint_of`).

    With `last=True` the COMMIT travels with the statement, which saves its round trip; nothing may follow, and no
    later failure of the caller undoes it.
    """

    __slots__ = (
        "_alchemy",
        "_begun",
        "_connection",
        "_connections",
        "_ended",
        "_terms",
        "appended",
        "database",
        "name",
    )

    def __init__(
        self, name: str, terms: Terms, *, database: Database, connections: Connections, connection: PooledConnection
    ) -> None:
        """Only `Database` makes one."""
        self.name = name
        self.database = database
        self.appended: list[OutboxRow] = []
        """What `outbox.append` wrote, for whoever publishes it after the commit."""
        self._terms = terms
        self._connections = connections
        self._connection = connection
        self._alchemy: AsyncConnection | None = None
        self._begun = False
        self._ended = False

    @property
    def backend_pid(self) -> int:
        """The server's process behind it, as in pg_stat_activity."""
        return self._connection.info.backend_pid

    async def run(
        self, query: QueryNoTemplate, params: Params | None = None, *, last: bool = False
    ) -> AsyncCursor[TupleRow]:
        """Run a statement and give its cursor, rows as tuples; `rowcount` says how many it changed."""
        return await self._run(query, params, tuple_row, last=last)

    async def fetch_all(
        self, query: QueryNoTemplate, params: Params | None = None, *, row: type[T], last: bool = False
    ) -> list[T]:
        """Give all rows: a dataclass by column names, with words as enums; else the only column's value."""
        cursor = await self._run(query, params, rows_of(row), last=last)
        return await cursor.fetchall()

    async def fetch_one(
        self, query: QueryNoTemplate, params: Params | None = None, *, row: type[T], last: bool = False
    ) -> T | None:
        """Give the first row, or None where there is none (or where the only column is null)."""
        cursor = await self._run(query, params, rows_of(row), last=last)
        return await cursor.fetchone()

    @overload
    async def execute(
        self,
        statement: TypedReturnsRows[*Columns],
        params: Params | Sequence[Params] | None = None,
        *,
        options: CoreExecuteOptionsParameter | None = None,
    ) -> CursorResult[*Columns]: ...

    @overload
    async def execute(
        self,
        statement: Executable,
        params: Params | Sequence[Params] | None = None,
        *,
        options: CoreExecuteOptionsParameter | None = None,
    ) -> CursorResult[*tuple[Any, ...]]: ...

    async def execute(
        self,
        statement: Executable,
        params: Params | Sequence[Params] | None = None,
        *,
        options: CoreExecuteOptionsParameter | None = None,
    ) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement of SQLAlchemy and give its result, all rows fetched."""
        await self._begin()
        if self._alchemy is None:
            with self._connections.lending(self._connection) as engine:
                self._alchemy = await engine.connect()
        try:
            return await self._alchemy.execute(statement, params, execution_options=options)
        except DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise error.orig from None
            raise

    @overload
    async def scalar(self, statement: TypedReturnsRows[T], params: Params | None = None) -> T | None: ...

    @overload
    async def scalar(self, statement: Executable, params: Params | None = None) -> Any: ...  # noqa: ANN401 - as SQLAlchemy

    async def scalar(self, statement: Executable, params: Params | None = None) -> Any:
        """Run a statement of SQLAlchemy and give the first column of its first row, or None."""
        return (await self.execute(statement, params)).scalar()

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncGenerator[None]:
        """Undo only what is done inside when it fails, events included; the exception goes on."""
        await self._begin()
        before = len(self.appended)
        try:
            async with self._connection.transaction():
                yield
        except BaseException:
            del self.appended[before:]
            raise

    async def commit(self) -> None:
        """Commit; only `Database` calls it. A transaction without a statement never reached the server."""
        self._ended = True
        if self._connection.pgconn.transaction_status == TransactionStatus.INERROR:
            # The server would answer COMMIT with a silent rollback, and the caller would be told that all is well.
            raise errors.InFailedSqlTransaction("a statement failed and its error was swallowed without a savepoint")
        if self._begun:
            await self._connection.commit()
        await self._end_alchemy()

    async def rollback(self) -> None:
        """Undo everything; only `Database` calls it. A connection that cannot be made clean is closed."""
        self._ended = True
        try:
            if not self._connection.closed:
                await self._connection.rollback()
        except psycopg.Error:
            self._connections.discard(self._connection)
        except BaseException:
            self._connections.discard(self._connection)
            raise
        finally:
            await self._end_alchemy()

    async def _run(
        self, query: QueryNoTemplate, params: Params | None, factory: AsyncRowFactory[T], *, last: bool
    ) -> AsyncCursor[T]:
        assert not self._ended, "a transaction goes on after its end"  # noqa: S101 - a mistake of this program
        self._ended = last
        connection = self._connection
        alone = last and not self._begun and self._terms == _PLAIN
        if alone or (self._begun and not last):
            cursor = connection.cursor(row_factory=factory)
            await cursor.execute(query, params)
            return cursor
        preamble = () if self._begun else self._terms.preamble()
        self._begun = True
        async with connection.pipeline():
            for statement in preamble:
                await connection.execute(statement, prepare=False)
            plain = await connection.execute(query, params)
            if last:
                await connection.execute(b"COMMIT", prepare=False)
        # Only now: what a row factory raises in the midst of a pipeline leaves results in it that nobody collects.
        cursor = cast("AsyncCursor[T]", plain)
        cursor.row_factory = factory
        return cursor

    async def _begin(self) -> None:
        """Begin without a first statement to travel with."""
        assert not self._ended, "a transaction goes on after its end"  # noqa: S101 - a mistake of this program
        if not self._begun:
            preamble = b"; ".join(self._terms.preamble())
            self._begun = True
            await self._connection.execute(preamble, prepare=False)

    async def _end_alchemy(self) -> None:
        """Let SQLAlchemy go of the connection: it is idle or broken by now, so nothing is sent."""
        alchemy, self._alchemy = self._alchemy, None
        if alchemy is None:
            return
        if self._connection.closed:
            await alchemy.invalidate()
        await alchemy.close()
