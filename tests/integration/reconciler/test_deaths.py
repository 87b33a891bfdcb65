"""Prebuilds that were built and that no gateway holds: when they count as failed, and what never does that to them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from opentelemetry.metrics import NoOpMeter
from sqlalchemy import func, insert, select, update

from prebuilds.domain.builds import BuildOutcome, FailureClass, Transition
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import GatewayId, OrganizationId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind, PrebuildState
from prebuilds.reconciler import deaths
from prebuilds.reconciler.deaths import Deaths, fail_disconnected
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.gateways import refresh_gateway
from prebuilds.store.pool.deaths import fail_disconnected_prebuilds, find_disconnected
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.pool.locks import lock_prebuild_and_workspace
from prebuilds.store.pool.readiness import refresh_readiness
from tests.support.builders import (
    claim_prebuild,
    make_organization,
    make_pool,
    make_prebuild,
    make_starting_prebuild,
    make_user,
)
from tests.support.reconciling import Reconcilers, Stage
from tests.support.waiting import eventually, until_waiting

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
LONG = 10 * MINUTE + 10 * SECOND
NOT_LONG = 10 * MINUTE - 10 * SECOND
GONE = MINUTE
"""How long after it was last seen a gateway is gone."""


@pytest_asyncio.fixture
async def pool(database: Database) -> PoolKey:
    return await make_pool(database, await make_organization(database), instances=1)


async def make_gateway(database: Database, *, seen: timedelta = timedelta(0), live_for: timedelta = HOUR) -> GatewayId:
    """A gateway that was last seen so long ago and had been live for so long by now."""
    gateway = GatewayId(uuid4())
    async with database.transaction("test") as tx:
        await tx.execute(
            insert(schema.Gateway).values(
                id=gateway, address="test:1", seen_at=func.now() - seen, live_since=func.now() - live_for
            )
        )
    return gateway


async def set_connection(
    database: Database, workspace_id: WorkspaceId, gateways: Sequence[GatewayId] | timedelta
) -> None:
    """Have a prebuild held by these gateways, or by none for so long."""
    values = (
        {"gateways": None, "disconnected_at": func.now() - gateways}
        if isinstance(gateways, timedelta)
        else {"gateways": list(gateways), "disconnected_at": None}
    )
    row = schema.Prebuild
    async with database.transaction("test") as tx:
        await tx.execute(update(row).where(row.workspace_id == workspace_id).values(values))


async def make_built(
    database: Database, pool: PoolKey, gateways: Sequence[GatewayId] | timedelta, *, built: timedelta = HOUR
) -> WorkspaceId:
    """A prebuild whose build ended so long ago, held by these gateways, or by none for so long."""
    prebuild = await make_prebuild(database, pool)
    build = schema.Build
    async with database.transaction("test") as tx:
        await tx.execute(update(build).where(build.id == prebuild.build_id).values(finished_at=func.now() - built))
    await set_connection(database, prebuild.workspace_id, gateways)
    return prebuild.workspace_id


@dataclass(frozen=True)
class Fate:
    state: PrebuildState
    failure_class: FailureClass | None
    outcome: BuildOutcome | None
    build_class: FailureClass | None
    error: str
    is_ready: bool


async def fate_of(database: Database, workspace_id: WorkspaceId) -> Fate:
    prebuild, workspace, build = schema.Prebuild, schema.Workspace, schema.Build
    statement = (
        select(
            prebuild.state,
            prebuild.failure_class,
            build.outcome,
            build.failure_class,
            build.error,
            prebuild.ready_at.is_not(None),
        )
        .join(workspace, workspace.id == prebuild.workspace_id)
        .join(build, build.id == workspace.latest_build_id)
        .where(prebuild.workspace_id == workspace_id)
    )
    async with database.transaction("test") as tx:
        return Fate(*(await tx.execute(statement)).one())


async def is_failed(database: Database, workspace_id: WorkspaceId) -> bool:
    return (await fate_of(database, workspace_id)).state is PrebuildState.FAILED


async def failures_told(database: Database) -> list[tuple[str, FailureClass | None, WorkspaceId]]:
    event = schema.PoolEvent
    statement = select(event.reason, event.failure_class, event.workspace_id).where(event.kind == PoolEventKind.FAILED)
    async with database.transaction("test") as tx:
        return [(reason, class_, WorkspaceId(id_)) for reason, class_, id_ in await tx.execute(statement) if id_]


async def test_one_that_was_not_connected_for_ten_minutes_has_failed_by_the_infrastructure(
    database: Database, pool: PoolKey
) -> None:
    await make_gateway(database)
    dead = await make_built(database, pool, LONG)
    heard: list[EventKind] = []
    database.on_commit(lambda rows: heard.extend(row.event for row in rows if row.subject_id == dead))

    assert await fail_disconnected(database) == Deaths(failed=1)

    assert await fate_of(database, dead) == Fate(
        PrebuildState.FAILED,
        FailureClass.INFRASTRUCTURE,
        BuildOutcome.FAILED,
        FailureClass.INFRASTRUCTURE,
        "its agents were not connected for 10 min",
        is_ready=False,
    )
    assert await failures_told(database) == [("disconnected", FailureClass.INFRASTRUCTURE, dead)]
    assert heard == [EventKind.BUILD_CHANGED]
    assert not await fail_disconnected(database)


async def test_one_that_was_not_connected_for_less_is_left_alone(database: Database, pool: PoolKey) -> None:
    await make_gateway(database)
    await make_built(database, pool, NOT_LONG)

    assert not await fail_disconnected(database)


async def test_one_that_is_connected_is_left_alone(database: Database, pool: PoolKey) -> None:
    await make_built(database, pool, [await make_gateway(database)])

    assert not await fail_disconnected(database)


async def test_the_time_counts_from_the_end_of_the_build_however_long_that_took(
    database: Database, pool: PoolKey
) -> None:
    await make_gateway(database)
    fresh = await make_built(database, pool, HOUR, built=NOT_LONG)
    never_begun = await make_built(database, pool, HOUR, built=LONG)

    assert await fail_disconnected(database) == Deaths(failed=1)

    assert not await is_failed(database, fresh)
    assert await is_failed(database, never_begun)


async def test_the_time_counts_from_when_the_gateway_that_held_it_was_gone(database: Database, pool: PoolKey) -> None:
    await make_gateway(database)
    recent = await make_built(database, pool, [await make_gateway(database, seen=GONE + NOT_LONG)])
    long_gone = await make_built(database, pool, [await make_gateway(database, seen=GONE + LONG)])

    assert await fail_disconnected(database) == Deaths(failed=1)

    assert not await is_failed(database, recent)
    assert await is_failed(database, long_gone)


async def test_one_of_two_agents_whose_gateway_is_gone_suffices(database: Database, pool: PoolKey) -> None:
    live = await make_gateway(database)
    dead = await make_built(database, pool, [live, await make_gateway(database, seen=GONE + LONG)])

    assert await fail_disconnected(database) == Deaths(failed=1)
    assert await is_failed(database, dead)


async def test_a_gateway_whose_row_was_removed_has_long_been_gone(database: Database, pool: PoolKey) -> None:
    await make_gateway(database)
    forgotten = GatewayId(uuid4())
    fresh = await make_built(database, pool, [forgotten], built=NOT_LONG)
    dead = await make_built(database, pool, [forgotten], built=LONG)

    assert await fail_disconnected(database) == Deaths(failed=1)

    assert not await is_failed(database, fresh)
    assert await is_failed(database, dead)


async def test_an_outage_of_all_gateways_kills_nothing(database: Database, pool: PoolKey) -> None:
    gateway = await make_gateway(database, seen=GONE + HOUR, live_for=3 * HOUR)
    held = await make_built(database, pool, [gateway])
    detached = await make_built(database, pool, HOUR)

    assert not await fail_disconnected(database)

    async with database.transaction("test") as tx:
        await refresh_gateway(tx, gateway, "test:1")
    assert not await fail_disconnected(database)

    row = schema.Gateway
    async with database.transaction("test") as tx:
        await tx.execute(update(row).values(live_since=func.now() - LONG))
    assert await fail_disconnected(database) == Deaths(failed=1)
    assert not await is_failed(database, held)
    assert await is_failed(database, detached)


async def test_a_gateway_that_comes_back_as_another_process_kills_nothing(database: Database, pool: PoolKey) -> None:
    before = await make_gateway(database, seen=GONE + HOUR, live_for=3 * HOUR)
    await make_built(database, pool, [before])
    await make_gateway(database, live_for=NOT_LONG)

    assert not await fail_disconnected(database)


async def test_a_gateway_that_was_not_seen_for_a_minute_counts_as_none(database: Database, pool: PoolKey) -> None:
    await make_gateway(database, seen=GONE + SECOND)
    await make_built(database, pool, HOUR)

    assert not await fail_disconnected(database)


@pytest.mark.parametrize(
    "state", [PrebuildState.STARTING, PrebuildState.STOPPING, PrebuildState.STOPPED, PrebuildState.DELETING]
)
async def test_what_does_not_run_cannot_die(database: Database, pool: PoolKey, state: PrebuildState) -> None:
    await make_gateway(database)
    await make_built(database, pool, HOUR)
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Prebuild).values(state=state))

    assert not await fail_disconnected(database)


async def test_one_that_is_still_being_built_is_left_alone(database: Database, pool: PoolKey) -> None:
    await make_gateway(database)
    building = await make_starting_prebuild(database, pool)
    await set_connection(database, building.workspace_id, HOUR)

    assert not await fail_disconnected(database)


async def test_a_claimed_one_is_never_touched(database: Database, pool: PoolKey) -> None:
    gateway = await make_gateway(database)
    prebuild = await make_prebuild(database, pool)
    async with database.transaction("test") as tx:
        await lock_prebuild_and_workspace(tx, prebuild.workspace_id)
        await tx.run(b"UPDATE agents SET state = 'ready'")
        await refresh_readiness(tx, [prebuild.workspace_id])
    await set_connection(database, prebuild.workspace_id, [gateway])
    claimed = await claim_prebuild(database, pool, await make_user(database))
    async with database.transaction("test") as tx:
        await tx.run(b"UPDATE agents SET gateway_id = NULL, disconnected_at = now() - interval '1 h'")
        await tx.run(b"UPDATE builds SET finished_at = now() - interval '1 h' WHERE outcome IS NOT NULL")

    assert not await fail_disconnected(database)
    async with database.transaction("test") as tx:
        assert not await fail_disconnected_prebuilds(tx, [claimed.workspace_id])
        outcomes = await tx.execute(select(schema.Build.outcome).where(schema.Build.outcome == BuildOutcome.FAILED))
        assert outcomes.all() == []


async def test_one_whose_agents_came_back_while_its_lock_was_waited_for_is_spared(
    database: Database, pool: PoolKey, database_url: str
) -> None:
    gateway = await make_gateway(database)
    workspace_id = await make_built(database, pool, HOUR)
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
    ):
        await holder.execute(
            "UPDATE prebuilds SET gateways = ARRAY[%s], disconnected_at = NULL WHERE workspace_id = %s",
            [gateway, workspace_id],
        )
        looking = asyncio.create_task(fail_disconnected(database))
        await until_waiting(observer)
        await holder.commit()
        found = await looking

    assert found == Deaths(spared=1)
    assert not await is_failed(database, workspace_id)


async def test_replicas_that_look_at_once_tell_each_death_once(
    database: Database, pool: PoolKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deaths, "MOST_AT_ONCE", 2)
    await make_gateway(database)
    dead = [await make_built(database, pool, LONG) for _ in range(5)]

    found = await asyncio.gather(*(fail_disconnected(database) for _ in range(3)))

    assert sum(each.failed for each in found) == 5
    assert sorted(workspace_id for _, _, workspace_id in await failures_told(database)) == sorted(dead)


async def test_deaths_count_for_backoff_and_not_for_the_hard_limit(database: Database, pool: PoolKey) -> None:
    await make_gateway(database)
    for _ in range(3):
        await make_built(database, pool, LONG)
    await fail_disconnected(database)
    passes = Reconciler(
        database,
        Hints(),
        config=Config(hard_limit=3),
        lookback=HOUR,
        concurrency=1,
        meter=NoOpMeter("test"),
    )

    backing_off = await passes.run_pass(EVERYTHING)
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Build).values(created_at=func.now() - HOUR + MINUTE))
    later = await passes.run_pass(EVERYTHING)

    assert (backing_off.backing_off, backing_off.created) == (1, 0)
    assert (later.backing_off, later.created) == (0, 1)


async def test_deaths_are_told_of_paused_pools_too(database: Database, pool: PoolKey) -> None:
    await make_gateway(database)
    dead = await make_built(database, pool, LONG)
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Preset).where(schema.Preset.id == pool.preset_id).values(paused_at=func.now()))

    await fail_disconnected(database)

    assert await is_failed(database, dead)


async def test_finding_the_dead_of_many_names_no_more_than_asked(database: Database, pool: PoolKey) -> None:
    await make_gateway(database)
    dead = sorted([await make_built(database, pool, LONG) for _ in range(3)])

    async with database.read("test") as tx:
        assert await find_disconnected(tx, limit=2) == dead[:2]


async def test_a_reconciler_that_runs_finds_the_dead_and_replaces_them(
    database: Database, reconcilers: Reconcilers, stage: Stage
) -> None:
    await make_gateway(database)
    organization = await make_organization(database)
    pool = await make_pool(database, OrganizationId(organization), instances=1)
    dead = await make_built(database, pool, LONG)

    await reconcilers.start(backoff_interval=timedelta(0))

    await eventually(lambda: is_failed(database, dead))
    await eventually(lambda: stage.jobs(str(pool.preset_id), Transition.START))
