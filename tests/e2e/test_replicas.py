"""Three reconcilers, as programs, on one database: they share the work, none waits, and one may fall amid its work.

The tick is an hour away, so what is done is done by a pass that somebody asked for, by hints, or by what stayed dirty.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest_asyncio

from prebuilds.domain.builds import Transition
from prebuilds.domain.ids import WorkspaceId
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.store.database import Database
from prebuilds.v1 import pool_pb2, template_pb2
from prebuilds.v1 import pool_service_pb2 as pb
from tests.support.builders import claim_prebuild, make_user
from tests.support.pools import make_reconciler
from tests.support.reconciling import Client, Reconcilers, Stage, make_manifest
from tests.support.replicas import Replica, open_replica
from tests.support.templates import pool_key
from tests.support.waiting import eventually, until_waiting

PRESETS = 24
INSTANCES = 2
REPLICAS = 3


@pytest_asyncio.fixture
async def replicas(reconcilers: Reconcilers) -> AsyncIterator[Sequence[Replica]]:
    async with AsyncExitStack() as stack:
        opening = (stack.enter_async_context(open_replica(reconcilers, f"r{number}")) for number in range(REPLICAS))
        opened = await asyncio.gather(*opening)
        await opened[0].client.make_organization()
        yield opened
        assert [complaint for replica in opened for complaint in replica.complaints()] == []


@pytest_asyncio.fixture
async def observer(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest_asyncio.fixture
async def holder(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """Somebody who holds locks, until the rollback."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield connection


async def pause(client: Client) -> None:
    request = pb.PauseReconciliationRequest(scope=pool_pb2.PAUSE_SCOPE_DEPLOYMENT, message="an upgrade")
    await client.pools.PauseReconciliation(request, metadata=client.metadata)


async def resume(client: Client) -> None:
    request = pb.ResumeReconciliationRequest(scope=pool_pb2.PAUSE_SCOPE_DEPLOYMENT)
    await client.pools.ResumeReconciliation(request, metadata=client.metadata)


async def push(client: Client, number: int) -> Sequence[template_pb2.Preset]:
    """A template of so many pools, each of two that live for an hour."""
    presets = [
        {"name": f"p{each}", "prebuilds": {"instances": INSTANCES, "expiration_policy": {"ttl": 3600}}}
        for each in range(number)
    ]
    return (await client.push(make_manifest(presets=presets))).presets


async def filled(client: Client, stage: Stage, number: int) -> Sequence[template_pb2.Preset]:
    """So many pools at their targets, all that is in them eligible."""
    presets = await push(client, number)
    for preset in presets:
        await stage.until_states(preset.id, *["starting"] * INSTANCES)
        await stage.make_eligible(preset.id)
    return presets


async def test_replicas_share_the_work_of_many_pools_and_do_each_once(
    replicas: Sequence[Replica], stage: Stage, holder: psycopg.AsyncConnection
) -> None:
    client = replicas[0].client
    await pause(client)
    presets = await push(client, PRESETS)
    # All replicas see the work of all pools before anybody can do any of it.
    await holder.execute("SELECT FROM presets FOR NO KEY UPDATE")
    await resume(client)
    met = await asyncio.gather(*(replica.client.reconcile() for replica in replicas))
    assert [statistics.presets_held_elsewhere for statistics in met] == [PRESETS] * REPLICAS
    await holder.rollback()

    for preset in presets:
        await stage.until_states(preset.id, *["starting"] * INSTANCES)
    # What stayed dirty with the others is looked at, too, and finds nothing to do.
    again = await asyncio.gather(*(replica.client.reconcile() for replica in replicas))

    assert [(statistics.created, statistics.deleted) for statistics in again] == [(0, 0)] * REPLICAS
    done = [Counter(str(entry["preset_id"]) for entry in replica.said("pool reconciled")) for replica in replicas]
    assert all(done), "some replica had none of the work"
    assert sum(done, Counter[str]()) == Counter(preset.id for preset in presets)
    for preset in presets:
        assert await stage.states(preset.id) == ["starting"] * INSTANCES


async def test_the_pool_of_a_replica_that_was_killed_amid_its_work_is_done_by_another(
    replicas: Sequence[Replica],
    stage: Stage,
    database: Database,
    holder: psycopg.AsyncConnection,
    observer: psycopg.AsyncConnection,
) -> None:
    first, second, _ = replicas
    held, *others = await filled(first.client, stage, 4)
    old = await expire_one_of_each(stage, database, [held, *others])
    await holder.execute("SELECT FROM prebuilds WHERE workspace_id = %s FOR UPDATE", [old[held.id]])
    falling = asyncio.create_task(first.client.reconcile())
    (pid,) = await until_waiting(observer)

    # Another goes on with what the first has not done, and waits for nothing.
    met = await second.client.reconcile()
    assert met.presets_held_elsewhere == 1
    assert await until_waiting(observer) == [pid]
    for preset in others:
        assert await stage.states(preset.id) == ["deleting", "running", "starting"]
    # The first gets its lock and is in the midst of its transaction, and then falls.
    first.halt()
    await holder.rollback()
    await eventually(lambda: is_idle_in_transaction(observer, pid), what="it has its lock")
    assert await stage.states(held.id) == ["running"] * INSTANCES
    await first.kill()

    await stage.until_states(held.id, "deleting", "running", "starting")
    assert len(await stage.jobs(held.id, Transition.DELETE)) == 1
    (done,) = [entry for entry in second.said("pool reconciled") if entry["preset_id"] == held.id and entry["deleted"]]
    assert (done["deleted"], done["created"]) == (1, 1)
    await asyncio.wait([falling])
    assert falling.exception() is not None


async def test_what_a_killed_replica_waited_for_does_not_keep_its_locks(
    reconcilers: Reconcilers,
    stage: Stage,
    database: Database,
    holder: psycopg.AsyncConnection,
    observer: psycopg.AsyncConnection,
) -> None:
    async with open_replica(reconcilers, "falling") as replica:
        await replica.client.make_organization()
        (held,) = await filled(replica.client, stage, 1)
        old = await expire_one_of_each(stage, database, [held])
        await holder.execute("SELECT FROM prebuilds WHERE workspace_id = %s FOR UPDATE", [old[held.id]])
        falling = asyncio.create_task(replica.client.reconcile())
        (pid,) = await until_waiting(observer)
        await replica.kill()
        await asyncio.wait([falling])
        assert falling.exception() is not None

    # Nobody has let go of the row yet.
    await eventually(lambda: is_gone(observer, pid), what="Postgres has noticed")
    await holder.rollback()
    assert (await make_reconciler(database).run_pass(EVERYTHING)).deleted == 1
    assert await stage.states(held.id) == ["deleting", "running", "starting"]


async def test_a_pause_of_everything_survives_the_restart_of_every_reconciler(
    reconcilers: Reconcilers, stage: Stage, database: Database
) -> None:
    async with open_replica(reconcilers, "before") as before:
        await before.client.make_organization()
        (preset,) = await filled(before.client, stage, 1)
        await pause(before.client)
        await before.stop()
    await claim_prebuild(database, pool_key(preset), await make_user(database))

    async with open_replica(reconcilers, "after") as after:
        (first_pass,) = [entry for entry in after.said("loop ran") if entry["loop"] == "tick"]
        assert (first_pass["seen"], first_pass["paused"], first_pass["created"]) == (1, 1, 0)
        assert (await after.client.reconcile()).presets_paused == 1
        (block,) = (await after.client.pool(preset.id)).blocked_by
        assert (block.kind, block.pause.message) == (pool_pb2.BLOCK_KIND_PAUSED, "an upgrade")
        assert await stage.states(preset.id) == ["running"]

        await resume(after.client)
        await stage.until_states(preset.id, "running", "starting")


async def expire_one_of_each(
    stage: Stage, database: Database, presets: Sequence[template_pb2.Preset]
) -> dict[str, WorkspaceId]:
    """Let one prebuild of each pool be too old, behind everybody's back; which, by preset."""
    async with database.read("test") as tx:
        query = b"SELECT preset_id, min(workspace_id::text)::uuid FROM prebuilds GROUP BY preset_id"
        rows: list[tuple[UUID, UUID]] = await (await tx.run(query)).fetchall()
    oldest = {str(preset_id): WorkspaceId(workspace_id) for preset_id, workspace_id in rows}
    for preset in presets:
        await stage.age(oldest[preset.id], timedelta(hours=2))
    return oldest


async def is_idle_in_transaction(observer: psycopg.AsyncConnection, pid: int) -> bool:
    query = "SELECT state = 'idle in transaction' FROM pg_stat_activity WHERE pid = %s"
    return (await (await observer.execute(query, [pid])).fetchone()) == (True,)


async def is_gone(observer: psycopg.AsyncConnection, pid: int) -> bool:
    return (await observer.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid])).rowcount == 0
