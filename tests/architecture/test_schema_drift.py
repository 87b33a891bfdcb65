"""The schema that migrations make is the one that the models describe, down to predicates, CHECKs and first rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from prebuilds.embedded.postgres import find_binaries
from prebuilds.store.schema import Base

ROOT = Path(__file__).parents[2]


def test_migrations_make_the_schema_of_the_models(database_url: str, empty_database_url: str) -> None:
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(empty_database_url), poolclass=NullPool
    )
    with engine.begin() as connection:
        Base.metadata.create_all(connection)

    assert _dump(database_url) == _dump(empty_database_url)


def test_migrations_and_models_begin_with_the_same_users(database_url: str, empty_database_url: str) -> None:
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(empty_database_url), poolclass=NullPool
    )
    with engine.begin() as connection:
        Base.metadata.create_all(connection)

    assert _users(database_url) == _users(empty_database_url) == [("prebuilds", True)]


def test_the_first_migration_is_written_from_the_models() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/migration.py", "--check"], cwd=ROOT, check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr


def _dump(url: str) -> list[str]:
    command = [find_binaries() / "pg_dump", "--schema-only", "--no-owner", "--exclude-table=alembic_version", url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    # A dump begins and ends with a random word that differs each time.
    return [line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


def _users(url: str) -> list[tuple[str, bool]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT name, is_system FROM users").fetchall()
