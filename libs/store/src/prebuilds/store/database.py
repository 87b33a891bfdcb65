"""The database as a program sees it: opened once, it hands out transactions and says plainly what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from typing import Final, TypeAlias, TypeVar

import structlog
from opentelemetry import trace
from psycopg.abc import QueryNoTemplate
from psycopg.errors import ReadOnlySqlTransaction

from prebuilds.domain.refusals import Refusal
from prebuilds.store.connections import Connections
from prebuilds.store.faults import is_conflict, lost_connection, refusal_for
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.transactions import Isolation, Params, Terms, Transaction

T = TypeVar("T")

Committed: TypeAlias = Callable[[Sequence[OutboxRow]], None]
"""Takes the events of a transaction that has just committed. It must neither wait nor raise: the commit stands."""

TRIES: Final = 3
"""How often a transaction is begun before a conflict becomes a refusal."""

_MAX_PAUSE: Final = timedelta(milliseconds=20)

_log = structlog.stdlib.get_logger(__name__)
_tracer = trace.get_tracer("prebuilds.store")


class Database:
    """Transactions on Postgres; `open_database` makes one per process."""

    def __init__(
        self,
        connections: Connections,
        trace_context: Callable[[], str | None],
        remaining_time: Callable[[], timedelta | None],
    ) -> None:
        """Use connections that are open."""
        self.trace_context: Final = trace_context
        """Gives the `traceparent` that an event of this moment carries."""
        self._remaining_time = remaining_time
        self._connections = connections
        self._committed: Committed | None = None

    def on_commit(self, sink: Committed) -> None:
        """Hand the events of every transaction to this sink, once it has committed; never those of a rollback."""
        self._committed = sink

    @contextlib.asynccontextmanager
    async def transaction(
        self,
        name: str,
        *,
        isolation: Isolation = Isolation.READ_COMMITTED,
        read_only: bool = False,
        timeout: timedelta | None = None,
    ) -> AsyncGenerator[Transaction]:
        """Open a transaction, named for traces and logs; commit at the end, roll back when anything escapes.

        Read `Transaction` before writing one: it has the lock order and what may be awaited. Each statement may take
        as long as the caller still waits, and no longer than `timeout`. Faults of the database leave as refusals;
        every other exception, as it came, cancellation too. Where the connection is lost during the commit, the
        refusal does not say whether it happened: a request id does.
        """
        terms = Terms(isolation, read_only, _shorter(timeout, self._remaining_time()))
        cancellations = _cancellations()
        try:
            with _span(name):
                connection = await self._connections.take()
                try:
                    tx = Transaction(name, terms, database=self, connections=self._connections, connection=connection)
                    try:
                        _pass_on_cancellation(cancellations)
                        yield tx
                        _pass_on_cancellation(cancellations)
                        await tx.commit()
                    except BaseException as exception:
                        await tx.rollback()
                        if _on_a_replica(exception, terms):
                            self._connections.discard(connection)
                        raise
                finally:
                    await self._connections.give_back(connection)
        except Exception as exception:
            if lost_connection(exception):
                self._connections.noticed_loss()
            _pass_on_cancellation(cancellations)
            refusal = refusal_for(exception)
            if refusal is None or (terms.read_only and isinstance(exception, ReadOnlySqlTransaction)):
                raise
            raise refusal from exception
        if tx.appended and self._committed is not None:
            self._committed(tx.appended)
        _pass_on_cancellation(cancellations)

    def read(
        self, name: str, *, snapshot: bool = False, timeout: timedelta | None = None
    ) -> AbstractAsyncContextManager[Transaction]:
        """Open a read-only transaction; with `snapshot` all its statements see the same moment."""
        isolation = Isolation.REPEATABLE_READ if snapshot else Isolation.READ_COMMITTED
        return self.transaction(name, isolation=isolation, read_only=True, timeout=timeout)

    async def run(
        self,
        name: str,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        isolation: Isolation = Isolation.READ_COMMITTED,
        read_only: bool = False,
        timeout: timedelta | None = None,
    ) -> T:
        """Do this work in a transaction, all of it again after a deadlock or serialization failure, up to three times.

        So `work` changes nothing outside its transaction. The last conflict is refused with TRANSACTION_CONFLICT.
        """
        for attempt in range(1, TRIES):
            try:
                async with self.transaction(name, isolation=isolation, read_only=read_only, timeout=timeout) as tx:
                    return await work(tx)
            except Refusal as refusal:
                if not is_conflict(refusal.__cause__):
                    raise
                _log.info("transaction conflicted", transaction=name, attempt=attempt)
            await asyncio.sleep(random.uniform(0, attempt * _MAX_PAUSE.total_seconds()))  # noqa: S311 - jitter
        async with self.transaction(name, isolation=isolation, read_only=read_only, timeout=timeout) as tx:
            return await work(tx)

    async def run_once(
        self, name: str, query: QueryNoTemplate, params: Params | None = None, *, timeout: timedelta | None = None
    ) -> int:
        """Run one statement that is its own transaction, in one round trip, and say how many rows it changed."""
        async with self.transaction(name, timeout=timeout) as tx:
            return (await tx.run(query, params, last=True)).rowcount

    async def fetch_once(
        self,
        name: str,
        query: QueryNoTemplate,
        params: Params | None = None,
        *,
        row: type[T],
        timeout: timedelta | None = None,
    ) -> list[T]:
        """Give all rows of one statement that is its own transaction, in one round trip."""
        async with self.transaction(name, timeout=timeout) as tx:
            return await tx.fetch_all(query, params, row=row, last=True)


@contextlib.asynccontextmanager
async def open_database(
    url: str,
    *,
    pool_size: int = 10,
    min_size: int | None = None,
    application_name: str = "prebuilds",
    wait_for_connection: timedelta = timedelta(seconds=5),
    trace_context: Callable[[], str | None] = lambda: None,
    remaining_time: Callable[[], timedelta | None] = lambda: None,
) -> AsyncGenerator[Database]:
    """Open the one set of connections of this process, and close it at the end.

    `pool_size` connections at most, `min_size` of them (all, where it is not given) also when idle: a burst must not
    wait for processes to be forked. A transaction waits up to `wait_for_connection` for a free one. `remaining_time`
    tells how long whoever asked for the present work still waits; None, where nobody does.
    """
    connections = Connections(
        url,
        pool_size=pool_size,
        min_size=pool_size if min_size is None else min_size,
        application_name=application_name,
        wait_for_connection=wait_for_connection,
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(connections.opened())
        except Exception as exception:
            refusal = refusal_for(exception)
            if refusal is None:
                raise
            raise refusal from exception
        yield Database(connections, trace_context, remaining_time)


def _shorter(one: timedelta | None, other: timedelta | None) -> timedelta | None:
    return min((bound for bound in (one, other) if bound is not None), default=None)


def _on_a_replica(exception: BaseException, terms: Terms) -> bool:
    """Whether the server behind the connection stopped being the primary: the next connection finds the new one."""
    return isinstance(exception, ReadOnlySqlTransaction) and not terms.read_only


def _cancellations() -> int:
    """How often this task was asked to stop and still is."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _pass_on_cancellation(before: int) -> None:
    """Stop when the task was cancelled since `before` and has not heard of it.

    psycopg and its pool wait with `asyncio.wait_for`, which up to Python 3.11 swallows a cancellation that comes
    together with what it waits for (seen in 1 of 300). A loop that is told to end only once would go on for ever.
    """
    if _cancellations() > before:
        raise asyncio.CancelledError


def _span(name: str) -> AbstractContextManager[object]:
    """Show the transaction within the trace that it belongs to; what runs in no trace begins none here."""
    if not trace.get_current_span().is_recording():
        return contextlib.nullcontext()
    # An exception's text may hold values of rows, so it stays out of the trace.
    return _tracer.start_as_current_span(f"transaction {name}", record_exception=False, set_status_on_exception=False)
