"""A real Postgres for tests: one server per worker, migrated once, and a copy of that database for each test.

Nothing is left behind: the server dies with its worker, and what a killed worker left on disk goes at the next run.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from prebuilds.embedded.postgres import EmbeddedPostgres
from prebuilds.store.database import Database, open_database
from prebuilds.store.migrate import upgrade_blocking

FOLDER_PREFIX = "prebuilds-test-pg-"
MIGRATED = "migrated"
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "deadlock_timeout": "50ms",
}


class TestServer:
    """A server with a migrated database to copy."""

    __test__ = False

    def __init__(self, server: EmbeddedPostgres, admin: psycopg.Connection) -> None:
        self.server = server
        self._admin = admin

    def create_database(self, template: str = MIGRATED) -> str:
        """Copy a database (`template1` for an empty one) and give the copy's URL."""
        name = f"test_{uuid4().hex}"
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return self.server.url(name)

    def drop_database(self, url: str) -> None:
        """Drop it, whoever is still connected."""
        name = str(conninfo_to_dict(url)["dbname"])
        self._admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def scratch_server() -> Generator[EmbeddedPostgres]:
    """Run an empty server in a folder of its own; both are gone afterwards."""
    _remove_orphans()
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/tmp"))
    folder.chmod(0o755)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = EmbeddedPostgres(folder / "data", folder / "s", folder / "log", SETTINGS)
        try:
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(folder)


def _remove_orphans() -> None:
    """Remove the folders whose worker is gone: it held their lock."""
    for folder in Path("/tmp").glob(f"{FOLDER_PREFIX}*"):  # noqa: S108 - as above
        try:
            with (folder / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """The worker's server."""
    with scratch_server() as server, psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(MIGRATED)))
        upgrade_blocking(server.url(MIGRATED))
        yield TestServer(server, admin)


@pytest.fixture
def database_url(postgres: TestServer) -> Iterator[str]:
    """A migrated database of this test's own."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def empty_database_url(postgres: TestServer) -> Iterator[str]:
    """A database in which nothing is yet."""
    url = postgres.create_database("template1")
    yield url
    postgres.drop_database(url)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The test's database, opened as a program opens it; connections come as they are needed."""
    async with open_database(database_url, min_size=1, application_name="test") as opened:
        yield opened


async def deadlocks(database_url: str) -> int:
    """How many deadlocks this database has had, those of connections that are closed."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return int(row[0])
