"""Two who lock the same rows, interleaved by force: they wait for each other in one order, and never in a circle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import psycopg

from prebuilds.domain.builds import Transition
from prebuilds.domain.ids import ConnectionId, GatewayId
from prebuilds.store.database import Database, open_database
from prebuilds.store.pool.connections import Connection, attach
from tests.support.builders import make_organization, make_pool, make_user, make_workspace, queue
from tests.support.postgres import deadlocks
from tests.support.waiting import until_waiting


async def test_a_restart_and_an_attachment_lock_agents_in_one_order(database: Database, database_url: str) -> None:
    pool = await make_pool(database, await make_organization(database), agents=("first", "second"))
    alice = await make_user(database)
    workspace = await make_workspace(database, pool, alice)
    # By name and by id the agents come in opposite orders.
    low, high = sorted(workspace.agents.values())
    async with database.transaction("test") as tx:
        await tx.run(b"UPDATE agents SET name = 'a' WHERE id = %(id)s", {"id": high})
        await tx.run(b"UPDATE agents SET name = 'b' WHERE id = %(id)s", {"id": low})
        await tx.run(b"UPDATE template_versions SET agents = ARRAY['a', 'b']")
    streams = [
        Connection(ConnectionId(uuid4()), agent, workspace.workspace_id, epoch=1, incarnation=1, attempt=1)
        for agent in (low, high)
    ]

    async with (
        open_database(database_url, min_size=1) as gateway,
        open_database(database_url, min_size=1) as claims,
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
    ):
        await holder.execute("SELECT FROM agents WHERE id = %s FOR UPDATE", [low])
        attaching = asyncio.create_task(_attach(gateway, streams))
        await until_waiting(observer)
        restarting = asyncio.create_task(queue(claims, workspace.workspace_id, Transition.START, alice))
        await until_waiting(observer, 2)
        await holder.rollback()
        await asyncio.gather(attaching, restarting)

    # Theirs count once they are closed.
    assert await deadlocks(database_url) == 0


async def _attach(database: Database, streams: Sequence[Connection]) -> None:
    async with database.transaction("attach") as tx:
        await attach(tx, GatewayId(uuid4()), streams)
