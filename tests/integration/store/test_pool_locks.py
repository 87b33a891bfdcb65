"""The first two locks of every change to prebuilds: all pool rows by id, then their workspaces by id."""

from __future__ import annotations

import asyncio

import psycopg

from prebuilds.domain.ids import WorkspaceId
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import create_prebuilds
from prebuilds.store.pool.locks import lock_prebuilds, lock_prebuilds_and_workspaces, lock_workspaces
from prebuilds.store.transactions import Transaction
from tests.support.builders import claim_prebuild, make_organization, make_pool, make_prebuild, make_user
from tests.support.waiting import until_blocked

FREE_POOL_ROWS = b"SELECT workspace_id FROM prebuilds ORDER BY workspace_id FOR UPDATE SKIP LOCKED"
FREE_WORKSPACES = b"SELECT id FROM workspaces ORDER BY id FOR UPDATE SKIP LOCKED"


async def make_three(database: Database) -> list[WorkspaceId]:
    pool = await make_pool(database, await make_organization(database))
    async with database.transaction("test") as tx:
        made = await create_prebuilds(tx, pool, 3, parameters={}, reason="test")
    return sorted(build.workspace_id for build in made)


async def free(database: Database, query: bytes) -> list[WorkspaceId]:
    async with database.transaction("test") as tx:
        return [WorkspaceId(row[0]) for row in await (await tx.run(query)).fetchall()]


async def lock_all_while(
    database: Database, database_url: str, ids: list[WorkspaceId], held: WorkspaceId, *, is_pool_row: bool
) -> tuple[list[WorkspaceId], list[WorkspaceId]]:
    """Lock all, told in the opposite order, while somebody holds one; what pool rows and workspaces are free then."""

    async def lock_all(tx: Transaction) -> None:
        assert await lock_prebuilds_and_workspaces(tx, list(reversed(ids))) == set(ids)

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
        database.transaction("waiter") as waiter,
    ):
        async with database.transaction("holder") as holder:
            await (lock_prebuilds if is_pool_row else lock_workspaces)(holder, [held])
            await waiter.run(b"SELECT")
            waiting = asyncio.create_task(lock_all(waiter))
            await until_blocked(observer, waiter.backend_pid)
            found = await free(database, FREE_POOL_ROWS), await free(database, FREE_WORKSPACES)
        await waiting
    return found


async def test_workspaces_are_locked_by_id_when_all_pool_rows_are(database: Database, database_url: str) -> None:
    first, second, third = ids = await make_three(database)

    pool_rows, workspaces = await lock_all_while(database, database_url, ids, second, is_pool_row=False)

    assert pool_rows == []
    assert workspaces == [third]
    assert first not in workspaces


async def test_pool_rows_are_locked_by_id_and_before_any_workspace(database: Database, database_url: str) -> None:
    first, second, third = ids = await make_three(database)

    pool_rows, workspaces = await lock_all_while(database, database_url, ids, second, is_pool_row=True)

    assert pool_rows == [third]
    assert workspaces == [first, second, third]


async def test_what_is_claimed_is_neither_answered_nor_locked(database: Database) -> None:
    pool = await make_pool(database, await make_organization(database))
    prebuild = await make_prebuild(database, pool)
    async with database.transaction("test") as tx:
        await tx.run(
            b"UPDATE prebuilds SET ready_at = now(), gateways = ARRAY[gen_random_uuid()] WHERE workspace_id = %(id)s",
            {"id": prebuild.workspace_id},
        )
        await tx.run(b"INSERT INTO gateways (id, address) SELECT gateways[1], 'test:1' FROM prebuilds")
    await claim_prebuild(database, pool, await make_user(database))

    async with database.transaction("test") as tx:
        assert await lock_prebuilds_and_workspaces(tx, [prebuild.workspace_id]) == frozenset()
        assert await free(database, FREE_WORKSPACES) == [prebuild.workspace_id]
