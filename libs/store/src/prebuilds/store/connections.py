"""The one set of connections of a process: a psycopg connection pool, and an SQLAlchemy engine that borrows from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from datetime import timedelta
from time import monotonic
from typing import Final

from psycopg import AsyncConnection, ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import Diagnostic
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

PREPARED_STATEMENTS: Final = 500
"""How many statements a connection keeps prepared; more than a program has, so that none is thrown out."""

_SESSION: Final = r"-c TimeZone=UTC -c default_transaction_isolation=read\ committed -c jit=off"
"""What every session is told. Compiling a statement takes longer than any statement of ours runs."""

# The server's side of the same: locks of a process that fell while it waited, was cut off, or stands still in the midst
# of a transaction would else be held for as long as that lasts. A URL's own options win.
_LOSS: Final = (
    "-c client_connection_check_interval=2s -c idle_in_transaction_session_timeout=60s"
    " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)

# A dead network is noticed in half a minute and not in the kernel's two hours; a URL may say otherwise.
_DEFAULTS: Final[dict[str, str | int]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


def check_url(url: str) -> None:
    """Raise ValueError where this cannot be read as the address of a database; its text holds nothing of it."""
    try:
        given = conninfo_to_dict(url)
    except ProgrammingError:
        # The driver's own text quotes the URL, password and all.
        given = None
    # What stands behind the colon of a password with a bare slash is taken for a port.
    if not given or not all(port.isdecimal() for port in str(given.get("port") or 0).split(",") if port):
        raise ValueError("must be a Postgres connection URL, postgresql://user:password@host/database")


class PooledConnection(AsyncConnection[TupleRow]):
    """A connection of the pool; while a transaction holds it, SQLAlchemy's `close` does not give it back."""

    held = False
    checked_at = 0.0
    """When it was last known to work, on the monotonic clock."""

    async def close(self) -> None:
        """Close it, or give it back to its pool; do nothing while a transaction holds it."""
        if not self.held:
            await super().close()

    def add_notice_handler(self, callback: Callable[[Diagnostic], None]) -> None:
        """Add it once: SQLAlchemy adds its own each time that it borrows the connection and never takes it away."""
        with contextlib.suppress(ValueError):
            self.remove_notice_handler(callback)
        super().add_notice_handler(callback)


class Connections:
    """Lends connections to transactions and remembers when one of them was found dead."""

    def __init__(
        self, url: str, *, pool_size: int, min_size: int, application_name: str, wait_for_connection: timedelta
    ) -> None:
        """Prepare both; nothing is opened yet."""
        given = conninfo_to_dict(url)
        self._lost_at = 0.0
        self._borrowed: ContextVar[PooledConnection] = ContextVar("borrowed")
        self._pool = AsyncConnectionPool[PooledConnection](
            url,
            connection_class=PooledConnection,
            kwargs={
                **{name: value for name, value in _DEFAULTS.items() if name not in given},
                "application_name": application_name,
                "options": f"{_LOSS} {given.get('options') or ''} {_SESSION}",
                # Transactions say BEGIN themselves, so that it can travel with their first statement.
                "autocommit": True,
            },
            name=application_name,
            min_size=min_size,
            max_size=pool_size,
            timeout=wait_for_connection.total_seconds(),
            configure=_configure,
            check=self._check,
            close_returns=True,
            open=False,
        )
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._lend,
            poolclass=NullPool,
            use_native_hstore=False,
            hide_parameters=True,
        )

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Keep the pool open, with SQLAlchemy introduced to the server once, in nobody's transaction."""
        await self._pool.open()
        try:
            connection = await self.take()
            try:
                with self.lending(connection) as engine:
                    async with engine.connect():
                        pass
            finally:
                await self.give_back(connection)
            yield
        finally:
            await self._pool.close()

    async def take(self) -> PooledConnection:
        """Take a connection out of the pool and hold it."""
        connection = await self._pool.getconn()
        connection.held = True
        return connection

    async def give_back(self, connection: PooledConnection) -> None:
        """Give it back, idle or broken.

        Shielded: in a full pool `putconn` waits for the one it hands the connection to, and a cancellation at that
        moment would lose the connection for good (seen under load: after some seconds none was left).
        """
        connection.held = False
        await asyncio.shield(asyncio.ensure_future(self._pool.putconn(connection)))

    def discard(self, connection: PooledConnection) -> None:
        """Close it at once, whatever it is doing; its pool replaces it when it is given back."""
        connection.pgconn.finish()

    def noticed_loss(self) -> None:
        """From now on every connection of before is asked once for a sign of life before it is used again."""
        self._lost_at = monotonic()

    @contextlib.contextmanager
    def lending(self, connection: PooledConnection) -> Generator[AsyncEngine]:
        """Give the engine, whose next connection is this one."""
        token = self._borrowed.set(connection)
        try:
            yield self._engine
        finally:
            self._borrowed.reset(token)

    async def _lend(self) -> PooledConnection:
        return self._borrowed.get()

    async def _check(self, connection: PooledConnection) -> None:
        """Ask for a sign of life, but only where some connection was lost since the last: it costs a round trip."""
        if connection.checked_at <= self._lost_at:
            await AsyncConnectionPool.check_connection(connection)
            connection.checked_at = monotonic()


async def _configure(connection: PooledConnection) -> None:
    connection.prepared_max = PREPARED_STATEMENTS
    connection.checked_at = monotonic()
