"""The servers that a benchmark runs on: Postgres and NATS as `make run` ships them, in a folder of their own.

Postgres writes to disk as in production (fsync, synchronous_commit and full_page_writes on, autovacuum on); that and
the size of its cache are the settings of the laptop stack. Both are gone at the end, with everything in them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from prebuilds.embedded.nats import EmbeddedNats
from prebuilds.embedded.postgres import EmbeddedPostgres
from prebuilds.store.migrate import upgrade_blocking
from tests.bench.watching import LOG_LINE_PREFIX

SETTINGS: Final[Mapping[str, str]] = {"max_connections": "200", "shared_buffers": "64MB"}
"""Those of the laptop stack; everything else is Postgres' own default."""
_LINES: Final = {"log_line_prefix": LOG_LINE_PREFIX}
_MIGRATED: Final = "migrated"


@dataclass(frozen=True, slots=True)
class Servers:
    """Running servers."""

    folder: Path
    postgres: EmbeddedPostgres
    nats_url: str

    def create_database(self, name: str) -> str:
        """Make a migrated database and give its URL."""
        with psycopg.connect(self.postgres.url(), autocommit=True) as admin:
            query = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
            admin.execute(query.format(sql.Identifier(name), sql.Identifier(_MIGRATED)))
        return self.postgres.url(name)


@contextmanager
def open_servers() -> Generator[Servers]:
    """Start both; at the end they are stopped and their folder is removed."""
    with ExitStack() as stack:
        # /tmp whatever TMPDIR says: a socket's path must be short, and the server's user must reach it.
        folder = Path(tempfile.mkdtemp(prefix="prebuilds-bench-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        postgres = EmbeddedPostgres(folder / "data", folder / "s", folder / "postgres.log", {**SETTINGS, **_LINES})
        stack.callback(postgres.stop)
        postgres.start()
        nats = EmbeddedNats(folder / "nats", folder / "nats.log")
        stack.callback(nats.stop)
        nats.start()
        postgres.create_database(_MIGRATED)
        upgrade_blocking(postgres.url(_MIGRATED))
        yield Servers(folder, postgres, nats.url)
