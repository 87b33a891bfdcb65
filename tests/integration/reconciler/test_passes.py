"""What passes share, skip, wait for and undo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from opentelemetry.metrics import NoOpMeter
from sqlalchemy import select, text, update

from prebuilds.domain.builds import BuildOutcome, FailureClass, JobStatus, Transition
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.pools import (
    Extent,
    count_prebuilds,
    lock_preset,
    read_moment,
    read_prebuilds,
    read_presets,
)
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.rules.state import Counts, count
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.reconciler.wishes import Wishes
from prebuilds.store import schema
from prebuilds.store.database import Database, open_database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.transactions import Transaction
from tests.support.builders import claim_prebuild, make_organization, make_pool, make_user
from tests.support.reconciling import Stage
from tests.support.waiting import until_waiting


@pytest_asyncio.fixture
async def organization(database: Database) -> OrganizationId:
    return await make_organization(database)


def reconciler(database: Database, hints: Hints | None = None, *, concurrency: int = 2) -> Reconciler:
    return Reconciler(
        database,
        hints or Hints(),
        config=Config(),
        lookback=timedelta(hours=1),
        concurrency=concurrency,
        meter=NoOpMeter("test"),
    )


async def set_template(database: Database, pool: PoolKey, **values: object) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Template).where(schema.Template.id == pool.template_id).values(**values))


async def test_a_pool_at_its_target_is_left_alone(database: Database, organization: OrganizationId) -> None:
    await make_pool(database, organization, instances=2)
    passes = reconciler(database)

    first = await passes.run_pass(EVERYTHING)
    second = await passes.run_pass(EVERYTHING)

    assert (first.created, first.reconciled, first.skipped) == (2, 1, 0)
    assert (second.created, second.reconciled, second.skipped) == (0, 0, 1)


async def test_a_preset_that_somebody_else_holds_is_tried_again(
    database: Database, organization: OrganizationId
) -> None:
    pool = await make_pool(database, organization, instances=1)
    hints = Hints()
    passes = reconciler(database, hints)
    async with database.transaction("another replica") as tx:
        assert await lock_preset(tx, pool.preset_id)
        held = await passes.run_pass(EVERYTHING)
    assert (held.held_elsewhere, held.created) == (1, 0)

    await hints.wakeups.wait(timedelta(seconds=10))

    again = await passes.run_pass(hints.take())
    assert again.created == 1


async def test_a_pause_keeps_a_pool_as_it_is(database: Database, organization: OrganizationId) -> None:
    pool = await make_pool(database, organization, instances=1)
    passes = reconciler(database)
    async with database.transaction("test") as tx:
        paused_at = (await read_moment(tx)).at
    await set_template(database, pool, paused_at=paused_at)

    statistics = await passes.run_pass(EVERYTHING)

    assert (statistics.paused, statistics.created) == (1, 0)
    await set_template(database, pool, paused_at=None)
    assert (await passes.run_pass(EVERYTHING)).created == 1


async def test_hints_reach_the_pools_that_they_are_about(database: Database, organization: OrganizationId) -> None:
    pool = await make_pool(database, organization, template="a", instances=1)
    await make_pool(database, organization, template="b", instances=1)
    passes = reconciler(database)

    by_template = await passes.run_pass(Extent(template_ids=frozenset({pool.template_id})))
    async with database.transaction("test") as tx:
        (prebuild,) = (await read_prebuilds(tx, [pool.preset_id]))[pool.preset_id]
    by_workspace = await passes.run_pass(Extent(workspace_ids=frozenset({prebuild.workspace_id})))
    by_nothing = await passes.run_pass(Extent(preset_ids=frozenset({PresetId(UUID(int=1))})))

    assert (by_template.seen, by_template.created) == (1, 1)
    assert (by_workspace.seen, by_workspace.created) == (1, 0)
    assert by_nothing.seen == 0


async def test_sql_counts_as_the_rules_do(database: Database, organization: OrganizationId, stage: Stage) -> None:
    pool = await make_pool(database, organization, instances=6)
    passes = reconciler(database)
    await passes.run_pass(EVERYTHING)
    await stage.make_eligible(str(pool.preset_id))
    await set_instances(database, pool, 9)
    await passes.run_pass(EVERYTHING)
    running, failing, _ = await stage.jobs(str(pool.preset_id))
    await stage.finish([running])
    await stage.finish([failing], BuildOutcome.FAILED, FailureClass.INFRASTRUCTURE)
    await set_instances(database, pool, 4)
    await passes.run_pass(EVERYTHING)

    async with database.read("test", snapshot=True) as tx:
        moment = await read_moment(tx)
        (preset,) = await read_presets(tx, [pool.preset_id])
        in_sql = (await count_prebuilds(tx, [pool.preset_id]))[pool.preset_id]
        prebuilds = (await read_prebuilds(tx, [pool.preset_id]))[pool.preset_id]

    assert in_sql == count(Wishes().policy_of(preset), prebuilds, moment.at)
    assert in_sql == Counts(running=4, ready=in_sql.ready, starting=1, queued=1, deleting=3, failed=1)


async def test_only_first_starts_that_wait_are_canceled(
    database: Database, organization: OrganizationId, stage: Stage
) -> None:
    pool = await make_pool(database, organization, instances=3)
    passes = reconciler(database)
    await passes.run_pass(EVERYTHING)
    queued, taken, built = await stage.jobs(str(pool.preset_id))
    await stage.finish([built])
    async with database.transaction("test") as tx:
        await tx.run(
            b"UPDATE jobs SET status = 'running', lease_id = gen_random_uuid() WHERE id = %(id)s", {"id": taken}
        )
    await set_template(database, pool, deprecated="use the other one")

    statistics = await passes.run_pass(EVERYTHING)

    assert (statistics.canceled, statistics.deleted, statistics.created) == (1, 1, 0)
    assert await stage.states(str(pool.preset_id)) == ["deleting", "starting"]
    async with database.transaction("test") as tx:
        jobs = await tx.execute(select(schema.Job.status).where(schema.Job.id.in_([queued, taken])))
        assert set(jobs.scalars()) == {JobStatus.CANCELED, JobStatus.RUNNING}
        outcomes = select(schema.Build.outcome, schema.Workspace.deleted).join(
            schema.Workspace, schema.Workspace.id == schema.Build.workspace_id
        )
        rows = await tx.execute(outcomes.where(schema.Build.outcome == BuildOutcome.CANCELED))
        assert rows.all() == [(BuildOutcome.CANCELED, True)]


async def test_a_claimed_prebuild_is_not_deleted_whatever_the_plan_said(
    database: Database, organization: OrganizationId, stage: Stage
) -> None:
    pool = await make_pool(database, organization, instances=1)
    passes = reconciler(database)
    await passes.run_pass(EVERYTHING)
    await stage.make_eligible(str(pool.preset_id))
    claimed = await claim_prebuild(database, pool, await make_user(database))
    await set_template(database, pool, deprecated="gone")

    assert (await passes.run_pass(EVERYTHING)).deleted == 0
    async with database.transaction("test") as tx:
        deletes = await tx.execute(select(schema.Build.id).where(schema.Build.transition == Transition.DELETE))
        assert deletes.all() == []
        owned = await tx.execute(select(schema.Workspace.deleted).where(schema.Workspace.id == claimed.workspace_id))
        assert owned.scalar_one() is False


async def test_one_pool_that_fails_stops_no_other(database: Database, organization: OrganizationId) -> None:
    broken = await make_pool(database, organization, template="broken", instances=1)
    await make_pool(database, organization, template="sound", instances=1)
    async with database.transaction("test") as tx:
        # A trigger that only the broken template's workspaces run into.
        await tx.run(b"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$")
        # DDL takes no parameters; the id is of our own making.
        await tx.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON workspaces FOR EACH ROW"
                f" WHEN (NEW.template_id = '{broken.template_id}'::uuid) EXECUTE FUNCTION refuse()"
            )
        )

    statistics = await reconciler(database).run_pass(EVERYTHING)

    assert (statistics.failed, statistics.created) == (1, 1)


async def test_a_pool_whose_work_was_refused_for_something_that_passes_stays_dirty(
    database: Database, organization: OrganizationId
) -> None:
    await make_pool(database, organization, instances=1)
    hints = Hints()
    passes = reconciler(database, hints)
    async with database.transaction("test") as tx:
        await tx.run(
            b"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            b" $$ BEGIN RAISE 'conflict' USING ERRCODE = '40001'; END $$"
        )
        await tx.run(b"CREATE TRIGGER refuse BEFORE INSERT ON workspaces FOR EACH ROW EXECUTE FUNCTION refuse()")
    assert (await passes.run_pass(EVERYTHING)).failed == 1
    async with database.transaction("test") as tx:
        await tx.run(b"DROP TRIGGER refuse ON workspaces")

    await hints.wakeups.wait(timedelta(seconds=10))

    assert (await passes.run_pass(hints.take())).created == 1


async def test_all_pool_rows_of_a_pool_are_locked_before_any_workspace(
    database: Database, organization: OrganizationId, stage: Stage, database_url: str
) -> None:
    pool = await make_pool(database, organization, instances=2)
    passes = reconciler(database)
    await passes.run_pass(EVERYTHING)
    _, built = await stage.jobs(str(pool.preset_id))
    (running,) = await stage.finish([built])
    await set_template(database, pool, deprecated="use the other one")
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
    ):
        await holder.execute("SELECT FROM prebuilds WHERE workspace_id <> %s FOR UPDATE", [running])
        reconciling = asyncio.create_task(passes.run_pass(EVERYTHING))
        await until_waiting(observer)
        await observer.execute("SELECT FROM workspaces WHERE id = %s FOR UPDATE NOWAIT", [running])
        await holder.rollback()
        done = await reconciling

    assert (done.canceled, done.deleted) == (1, 1)


async def test_a_delete_that_failed_is_not_repeated_by_every_pass(
    database: Database, organization: OrganizationId, stage: Stage
) -> None:
    pool = await make_pool(database, organization, instances=1)
    passes = reconciler(database)
    await passes.run_pass(EVERYTHING)
    await stage.make_eligible(str(pool.preset_id))
    await set_template(database, pool, deprecated="gone")
    assert (await passes.run_pass(EVERYTHING)).deleted == 1

    await stage.finish(await stage.jobs(str(pool.preset_id), Transition.DELETE), BuildOutcome.FAILED)

    assert (await passes.run_pass(EVERYTHING)).deleted == 0
    assert await stage.states(str(pool.preset_id)) == ["failed"]


async def test_a_fill_queues_jobs_and_tells_the_daemons(database: Database, organization: OrganizationId) -> None:
    await make_pool(database, organization, instances=2)
    told: list[EventKind] = []
    database.on_commit(lambda rows: told.extend(row.event for row in rows))

    await reconciler(database).run_pass(EVERYTHING)

    assert told.count(EventKind.JOB_QUEUED) == 2


@dataclass
class AtOnce:
    """How much of the database's work goes on at once, waits for a connection included."""

    now: int = 0
    most: int = 0

    @contextmanager
    def _one_more(self) -> Generator[None]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1

    def counting(self, run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def run_and_count(*arguments: Any, **named: Any) -> Any:
            with self._one_more():
                return await run(*arguments, **named)

        return run_and_count

    def counting_within(
        self, read: Callable[..., AbstractAsyncContextManager[Transaction]]
    ) -> Callable[..., AbstractAsyncContextManager[Transaction]]:
        @asynccontextmanager
        async def read_and_count(*arguments: Any, **named: Any) -> AsyncGenerator[Transaction]:
            with self._one_more():
                async with read(*arguments, **named) as tx:
                    yield tx

        return read_and_count


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_many_pools_use_no_more_connections_than_allowed(
    database: Database,
    organization: OrganizationId,
    database_url: str,
    concurrency: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools = [await make_pool(database, organization, template=f"t{number}", instances=1) for number in range(8)]
    few = Extent(preset_ids=frozenset(pool.preset_id for pool in pools[:concurrency]))
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
        open_database(database_url, pool_size=10) as plenty,
    ):
        at_once = AtOnce()
        monkeypatch.setattr(plenty, "run", at_once.counting(plenty.run))
        monkeypatch.setattr(plenty, "read", at_once.counting_within(plenty.read))
        passes = reconciler(plenty, concurrency=concurrency)
        # No work gets beyond the workspaces that it makes.
        await holder.execute("LOCK TABLE workspaces IN SHARE MODE")
        filling = asyncio.create_task(passes.run_pass(EVERYTHING))
        await until_waiting(observer, max(1, concurrency - 1))
        hinted = asyncio.create_task(passes.run_pass(few))
        await until_waiting(observer, concurrency)
        # Its snapshot would be let through by Postgres.
        other = asyncio.create_task(passes.run_pass(EVERYTHING))
        cursor = await observer.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
            " AND pid NOT IN (%s, %s)",
            [holder.info.backend_pid, observer.info.backend_pid],
        )
        assert await cursor.fetchone() == (concurrency,)
        await holder.rollback()
        statistics = [await filling, await other, await hinted]

    assert at_once.most == concurrency
    assert [each.seen for each in statistics] == [8, 8, concurrency]
    assert (sum(each.created for each in statistics), [each.failed for each in statistics]) == (8, [0, 0, 0])


async def test_a_hint_that_comes_while_its_pool_is_worked_on_is_kept() -> None:
    hints = Hints()
    first = Extent(preset_ids=frozenset({PresetId(UUID(int=1))}))
    hints.add(first)
    assert hints.take() == first

    hints.add(first)

    assert await hints.wakeups.wait(timedelta(0))
    assert hints.take() == first
    assert not hints.take()


async def set_instances(database: Database, pool: PoolKey, instances: int) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(
            update(schema.Preset).where(schema.Preset.id == pool.preset_id).values(desired_instances=instances)
        )
