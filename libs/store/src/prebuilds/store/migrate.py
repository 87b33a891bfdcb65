"""Brings a database to the schema of this release: `await upgrade(url)`, or `python -m prebuilds.store.migrate`.

Several programs may start together: one of them migrates, under a session's advisory lock, while the others look again
every 50 ms. They do not wait *in* the lock's statement: its snapshot would be one that a migration's
CREATE INDEX CONCURRENTLY waits for. When the one that migrates dies, its session ends and another takes over; each
migration is a transaction, so there is nothing half done.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path
from typing import Final

import psycopg
import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import errors
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from prebuilds.domain.refusals import Refusal
from prebuilds.store.faults import refusal_for

LOCK: Final = 0x7072656275696C64
"""The advisory lock of migrations, `prebuild` in ASCII."""

_LOOK_AGAIN: Final = 0.05  # seconds

_log = structlog.stdlib.get_logger(__name__)


class DatabaseIsNewerError(Exception):
    """The database has a schema that this release does not know."""

    def __init__(self, found: str, newest: str) -> None:
        super().__init__(
            f"the database has schema {found}, this release knows schemas up to {newest}: a newer release has migrated"
            " it, run that one or restore a backup"
        )


async def upgrade(url: str) -> None:
    """Bring the database to the newest schema that this release knows; one query when it is there already."""
    await asyncio.to_thread(upgrade_blocking, url)


def upgrade_blocking(url: str) -> None:
    """Do as `upgrade` does, for programs without an event loop."""
    config = alembic_config()
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    assert newest is not None, "there are no migrations"  # noqa: S101 - a broken installation
    known = {script.revision for script in scripts.walk_revisions()}
    try:
        with psycopg.connect(url, autocommit=True, application_name="prebuilds migrate") as connection:
            if _is_there(connection, newest, known):
                return
            while not _locked(connection):
                time.sleep(_LOOK_AGAIN)
            # Another may have migrated meanwhile.
            if not _is_there(connection, newest, known):
                _run_migrations(url, config)
                _log.info("database migrated", schema=newest)
    except psycopg.OperationalError as exception:
        refusal = refusal_for(exception)
        if refusal is None:
            raise
        raise refusal from exception


def alembic_config() -> Config:
    """Configure Alembic for the migrations of this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


def _run_migrations(url: str, config: Config) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _is_there(connection: psycopg.Connection, newest: str, known: set[str]) -> bool:
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except errors.UndefinedTable:
        return False
    if row is None:
        return False
    found = str(row[0])
    if found not in known:
        raise DatabaseIsNewerError(found, newest)
    return found == newest


def _locked(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
    return row is not None and bool(row[0])


def main() -> None:
    """Migrate the database named by `--url` or PREBUILDS_DATABASE_URL, as a container's job does."""
    parser = argparse.ArgumentParser("python -m prebuilds.store.migrate", description=main.__doc__)
    parser.add_argument("--url", default=os.environ.get("PREBUILDS_DATABASE_URL"), help="postgresql://...")
    url = parser.parse_args().url
    if not url:
        parser.error("give --url or set PREBUILDS_DATABASE_URL")
    try:
        upgrade_blocking(url)
    except (DatabaseIsNewerError, Refusal) as exception:
        parser.exit(1, f"{exception}\n")


if __name__ == "__main__":
    main()
