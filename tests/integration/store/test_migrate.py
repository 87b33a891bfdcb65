"""Migrating: safe for several at once, quick for the rest, and never backwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import psycopg
import pytest

from prebuilds.domain.ids import SYSTEM_USER_ID
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.migrate import LOCK, DatabaseIsNewerError, upgrade
from tests.support.waiting import eventually


def _users(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT id, name, is_system FROM users").fetchall()


async def test_several_programs_may_migrate_at_once(empty_database_url: str) -> None:
    command = [sys.executable, "-m", "prebuilds.store.migrate"]
    environment = {**os.environ, "PREBUILDS_DATABASE_URL": empty_database_url}
    programs = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(4)]

    assert [(program.communicate()[1], program.returncode) for program in programs] == [(b"", 0)] * 4
    assert _users(empty_database_url) == [(SYSTEM_USER_ID, "prebuilds", True)]


async def test_several_tasks_may_migrate_at_once(empty_database_url: str) -> None:
    await asyncio.gather(*(upgrade(empty_database_url) for _ in range(4)))

    assert _users(empty_database_url) == [(SYSTEM_USER_ID, "prebuilds", True)]


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    await upgrade(database_url)

    assert _users(database_url) == [(SYSTEM_USER_ID, "prebuilds", True)]


async def test_who_finds_another_migrating_waits_for_it(empty_database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as other:
        await other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        task = asyncio.create_task(upgrade(empty_database_url))

        async def asks() -> bool:
            cursor = await other.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%try_advisory%'"
                " AND pid <> pg_backend_pid()"
            )
            return await cursor.fetchone() is not None

        await eventually(asks)
        assert not task.done()
        await other.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
        await task

    assert len(_users(empty_database_url)) == 1


async def test_a_database_of_a_newer_release_is_left_alone(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(DatabaseIsNewerError, match="schema 9999"):
        await upgrade(database_url)


async def test_the_program_says_why_it_cannot_migrate(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    command = [sys.executable, "-m", "prebuilds.store.migrate", "--url", database_url]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.startswith("the database has schema 9999")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Refusal) as caught:
        await upgrade("postgresql://postgres@/nowhere?host=/nonexistent")

    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
