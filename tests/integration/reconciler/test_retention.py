"""How long prebuilds that came to nothing are kept, how they go, and what never goes with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from opentelemetry.metrics import NoOpMeter
from pydantic import ValidationError
from sqlalchemy import func, insert, select, text, update

from prebuilds.domain.builds import BuildOutcome, BuildReason, FailureClass, JobStatus, Transition
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import JobId, OrganizationId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind, PrebuildState, PresetStatus
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.ended import ENDED
from prebuilds.reconciler.queries.pools import lock_preset
from prebuilds.reconciler.retention import Retained, Retention
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.deaths import fail_dead_prebuilds
from prebuilds.store.pool.filling import PoolKey, mark_deleting
from prebuilds.store.pool.locks import lock_prebuild_and_workspace
from tests.support.builders import (
    end_build,
    make_organization,
    make_pool,
    make_prebuild,
    make_starting_prebuild,
    make_user,
    queue,
)
from tests.support.reconciling import Reconcilers, Stage
from tests.support.waiting import eventually, until_waiting

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(hours=24)


@pytest_asyncio.fixture
async def organization(database: Database) -> OrganizationId:
    return await make_organization(database)


@pytest_asyncio.fixture
async def pool(database: Database, organization: OrganizationId) -> PoolKey:
    return await make_pool(database, organization, instances=2)


@pytest.fixture
def retention(database: Database) -> Retention:
    return Retention(database, keep_for=DAY)


def reconciler(database: Database, *, hard_limit: int = 3) -> Reconciler:
    return Reconciler(
        database,
        Hints(),
        config=Config(hard_limit=hard_limit),
        lookback=HOUR,
        concurrency=2,
        meter=NoOpMeter("test"),
    )


async def ended_ago(database: Database, workspace_id: WorkspaceId, by: timedelta) -> None:
    """Move the end of a workspace's latest build that far back."""
    build, workspace = schema.Build, schema.Workspace
    latest = select(workspace.latest_build_id).where(workspace.id == workspace_id).scalar_subquery()
    async with database.transaction("test") as tx:
        await tx.execute(update(build).where(build.id == latest).values(finished_at=func.now() - by))


async def make_ended(
    database: Database,
    pool: PoolKey,
    ago: timedelta = timedelta(0),
    *,
    outcome: BuildOutcome = BuildOutcome.FAILED,
    is_built: bool = True,
) -> WorkspaceId:
    """A prebuild whose first build ended so long ago without success; a daemon had it, or none ever did."""
    prebuild = await make_starting_prebuild(database, pool)
    job = schema.Job
    async with database.transaction("test") as tx:
        await tx.execute(update(job).where(job.id == prebuild.job_id).values(attempt=int(is_built)))
    await end_build(database, prebuild.job_id, outcome)
    await ended_ago(database, prebuild.workspace_id, ago)
    return prebuild.workspace_id


async def set_preset(database: Database, pool: PoolKey, **values: object) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Preset).where(schema.Preset.id == pool.preset_id).values(**values))


async def set_template(database: Database, pool: PoolKey, **values: object) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Template).where(schema.Template.id == pool.template_id).values(**values))


async def prebuilds_left(database: Database) -> dict[WorkspaceId, PrebuildState]:
    statement = select(schema.Prebuild.workspace_id, schema.Prebuild.state)
    async with database.transaction("test") as tx:
        return {WorkspaceId(id_): state for id_, state in await tx.execute(statement)}


async def deletes_of(database: Database, workspace_id: WorkspaceId) -> list[tuple[BuildReason, BuildOutcome | None]]:
    build = schema.Build
    statement = (
        select(build.reason, build.outcome)
        .where(build.workspace_id == workspace_id, build.transition == Transition.DELETE)
        .order_by(build.number)
    )
    async with database.transaction("test") as tx:
        return [(reason, outcome) for reason, outcome in await tx.execute(statement)]


async def removals_told(database: Database) -> list[tuple[str, UUID | None]]:
    event = schema.PoolEvent
    statement = select(event.reason, event.workspace_id).where(event.kind == PoolEventKind.DELETED).order_by(event.id)
    async with database.transaction("test") as tx:
        return [(reason, workspace_id) for reason, workspace_id in await tx.execute(statement)]


async def end_delete(
    database: Database, workspace_id: WorkspaceId, outcome: BuildOutcome, *, ago: timedelta = timedelta(0)
) -> None:
    """End the unfinished delete build of a workspace as a daemon would, so long ago."""
    job, build = schema.Job, schema.Build
    open_jobs = select(job.id).join(build, build.id == job.build_id)
    async with database.transaction("test") as tx:
        job_id = await tx.scalar(open_jobs.where(build.workspace_id == workspace_id, build.outcome.is_(None)))
        assert job_id is not None
        await tx.execute(update(job).where(job.id == job_id).values(attempt=1))
    await end_build(database, JobId(job_id), outcome)
    await ended_ago(database, workspace_id, ago)


async def test_what_failed_is_kept_for_its_time_and_then_deleted(
    database: Database, pool: PoolKey, retention: Retention
) -> None:
    fresh = await make_ended(database, pool, DAY - MINUTE)
    due = await make_ended(database, pool, DAY + MINUTE)

    assert await retention.run_once() == Retained(deleted=1)

    assert await prebuilds_left(database) == {fresh: PrebuildState.FAILED, due: PrebuildState.DELETING}
    assert await deletes_of(database, due) == [(BuildReason.RETENTION, None)]
    assert await removals_told(database) == [("retention", due)]
    assert not await retention.run_once()

    await end_delete(database, due, BuildOutcome.SUCCEEDED)
    assert await prebuilds_left(database) == {fresh: PrebuildState.FAILED}


async def test_what_was_canceled_while_a_daemon_had_it_is_deleted_by_a_build(
    database: Database, pool: PoolKey, retention: Retention
) -> None:
    due = await make_ended(database, pool, DAY, outcome=BuildOutcome.CANCELED)

    assert await retention.run_once() == Retained(deleted=1)
    assert await prebuilds_left(database) == {due: PrebuildState.DELETING}


@pytest.mark.parametrize("outcome", [BuildOutcome.FAILED, BuildOutcome.CANCELED])
async def test_what_no_daemon_ever_had_is_removed_without_a_build(
    database: Database, pool: PoolKey, retention: Retention, outcome: BuildOutcome
) -> None:
    due = await make_ended(database, pool, DAY, outcome=outcome, is_built=False)

    assert await retention.run_once() == Retained(unbuilt=1)

    assert await prebuilds_left(database) == {}
    assert await deletes_of(database, due) == []
    assert await removals_told(database) == [("retention", due)]
    async with database.transaction("test") as tx:
        assert await tx.scalar(select(schema.Workspace.deleted).where(schema.Workspace.id == due))
        builds = await tx.execute(select(schema.Build.outcome).where(schema.Build.workspace_id == due))
        assert builds.scalars().all() == [outcome]


async def test_more_than_the_pool_wants_go_at_once_the_oldest_first(
    database: Database, pool: PoolKey, retention: Retention
) -> None:
    oldest, older, old, new = [await make_ended(database, pool) for _ in range(4)]

    assert await retention.run_once() == Retained(deleted=2)

    assert await prebuilds_left(database) == {
        oldest: PrebuildState.DELETING,
        older: PrebuildState.DELETING,
        old: PrebuildState.FAILED,
        new: PrebuildState.FAILED,
    }
    assert set(await removals_told(database)) == {("retention_surplus", oldest), ("retention_surplus", older)}


async def test_of_an_inactive_preset_one_is_kept(database: Database, pool: PoolKey, retention: Retention) -> None:
    older, newer = [await make_ended(database, pool) for _ in range(2)]
    await set_template(database, pool, deprecated="use the other one")

    assert await retention.run_once() == Retained(deleted=1)
    assert await prebuilds_left(database) == {older: PrebuildState.DELETING, newer: PrebuildState.FAILED}

    await ended_ago(database, newer, DAY)
    assert await retention.run_once() == Retained(deleted=1)


async def test_what_a_schedule_wants_now_decides_how_many_are_kept(
    database: Database, pool: PoolKey, retention: Retention
) -> None:
    for _ in range(3):
        await make_ended(database, pool)
    async with database.transaction("test") as tx:
        await tx.execute(
            insert(schema.PresetSchedule).values(
                preset_id=pool.preset_id,
                ordinal=0,
                cron="* * * * *",
                instances=3,
            )
        )
    await set_preset(database, pool, timezone="Europe/Berlin")

    assert not await retention.run_once()


async def test_a_failed_delete_is_tried_again_after_a_pause_that_doubles(
    database: Database, pool: PoolKey, retention: Retention
) -> None:
    due = await make_ended(database, pool, DAY)
    assert await retention.run_once() == Retained(deleted=1)

    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        await end_delete(database, due, BuildOutcome.FAILED, ago=minutes * MINUTE - 5 * SECOND)
        assert not await retention.run_once()
        await ended_ago(database, due, minutes * MINUTE)
        assert await retention.run_once() == Retained(retried=1)

    assert await deletes_of(database, due) == [(BuildReason.RETENTION, BuildOutcome.FAILED)] * 8 + [
        (BuildReason.RETENTION, None)
    ]
    assert await removals_told(database) == [("retention", due)]


async def test_a_failed_delete_of_a_pass_is_tried_again(
    database: Database, pool: PoolKey, retention: Retention, stage: Stage
) -> None:
    passes = reconciler(database)
    await passes.run_pass(EVERYTHING)
    await stage.make_eligible(str(pool.preset_id))
    await set_template(database, pool, deprecated="gone")
    await passes.run_pass(EVERYTHING)
    failing, canceled = await stage.jobs(str(pool.preset_id), Transition.DELETE)
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Job).values(attempt=1))
    marked = [
        *await stage.finish([failing], BuildOutcome.FAILED),
        *await stage.finish([canceled], BuildOutcome.CANCELED),
    ]
    assert not await retention.run_once()

    for each in marked:
        await ended_ago(database, each, MINUTE)
    assert await retention.run_once() == Retained(retried=2)

    assert [reason for reason, _ in await removals_told(database)] == ["inactive", "inactive"]


async def test_what_a_person_started_again_after_its_delete_failed_goes_all_the_same(
    database: Database, pool: PoolKey, retention: Retention
) -> None:
    prebuild = await make_prebuild(database, pool)
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Job).values(attempt=1))
        await mark_deleting(tx, pool, [prebuild.workspace_id], kind=PoolEventKind.DELETED, reason="test")
    await end_delete(database, prebuild.workspace_id, BuildOutcome.FAILED)
    started = await queue(database, prebuild.workspace_id, Transition.START, await make_user(database))
    await end_build(database, started.job_id)
    assert await prebuilds_left(database) == {prebuild.workspace_id: PrebuildState.RUNNING}
    assert not await retention.run_once()

    # It takes no place of what failed.
    for _ in range(2):
        await make_ended(database, pool)
    assert not await retention.run_once()

    await ended_ago(database, prebuild.workspace_id, DAY)
    assert await retention.run_once() == Retained(retried=1)
    assert [reason for reason, _ in await removals_told(database)] == ["test"]


async def test_what_runs_is_parked_or_is_being_built_is_never_touched(
    database: Database, pool: PoolKey, organization: OrganizationId
) -> None:
    await make_starting_prebuild(database, pool)
    await make_prebuild(database, pool)
    parked = await make_prebuild(database, await make_pool(database, organization, template="other", instances=0))
    async with database.transaction("test") as tx:
        row = schema.Prebuild
        await tx.execute(update(row).where(row.workspace_id == parked.workspace_id).values(state=PrebuildState.STOPPED))
        await tx.execute(update(schema.Build).values(finished_at=func.now() - DAY))

    assert not await Retention(database, keep_for=timedelta(0)).run_once()


async def test_what_was_built_but_dead_is_kept_from_its_death_on(
    database: Database, pool: PoolKey, retention: Retention
) -> None:
    prebuild = await make_prebuild(database, pool)
    await ended_ago(database, prebuild.workspace_id, 2 * DAY)
    async with database.transaction("test") as tx:
        await tx.run(b"UPDATE agents SET state = 'start_error'")
        await lock_prebuild_and_workspace(tx, prebuild.workspace_id)
        assert await fail_dead_prebuilds(tx, [prebuild.workspace_id])

    assert not await retention.run_once()


@pytest.mark.parametrize("paused", ["preset", "template", "deployment"])
async def test_a_pause_keeps_nothing_that_is_due(
    database: Database, pool: PoolKey, retention: Retention, paused: str
) -> None:
    due = await make_ended(database, pool, DAY)
    leaking = await make_ended(database, pool)
    async with database.transaction("test") as tx:
        await mark_deleting(tx, pool, [leaking], kind=PoolEventKind.DELETED, reason="test")
    await end_delete(database, leaking, BuildOutcome.FAILED, ago=MINUTE)
    match paused:
        case "preset":
            await set_preset(database, pool, paused_at=func.now())
        case "template":
            await set_template(database, pool, paused_at=func.now())
        case _:
            async with database.transaction("test") as tx:
                await tx.execute(insert(schema.Setting).values(key="reconciliation_pause", value={}))

    assert await retention.run_once() == Retained(deleted=1, retried=1)

    assert await prebuilds_left(database) == {due: PrebuildState.DELETING, leaking: PrebuildState.DELETING}


async def test_a_pool_that_a_pass_works_on_is_passed_over(
    database: Database, pool: PoolKey, retention: Retention
) -> None:
    await make_ended(database, pool, DAY)
    async with database.transaction("a pass") as tx:
        assert await lock_preset(tx, pool.preset_id)
        assert await retention.run_once() == Retained(held_elsewhere=1)

    assert await retention.run_once() == Retained(deleted=1)


async def test_what_was_started_again_while_its_lock_was_waited_for_stays(
    database: Database, pool: PoolKey, retention: Retention, database_url: str
) -> None:
    due = await make_ended(database, pool, DAY)
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
    ):
        await holder.execute("UPDATE prebuilds SET state = 'running' WHERE workspace_id = %s", [due])
        running = asyncio.create_task(retention.run_once())
        await until_waiting(observer)
        await holder.commit()

        assert not await running

    assert await prebuilds_left(database) == {due: PrebuildState.RUNNING}


async def test_what_has_ended_is_read_from_indexes(database: Database, pool: PoolKey, database_url: str) -> None:
    await make_ended(database, pool)
    marked = await make_prebuild(database, pool)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "UPDATE prebuilds SET delete_marked_at = now() WHERE workspace_id = %s", [marked.workspace_id]
        )
        # Many that run, and many that people have or had.
        await connection.execute(
            """
            WITH made AS (
                INSERT INTO workspaces (organization_id, owner_id, name, template_id, latest_build_id)
                SELECT w.organization_id, w.owner_id, 'many-' || n, w.template_id, w.latest_build_id
                FROM (SELECT * FROM workspaces LIMIT 1) AS w CROSS JOIN generate_series(1, 4000) AS n
                RETURNING id, name
            )
            INSERT INTO prebuilds (workspace_id, organization_id, template_id, version_id, preset_id, state)
            SELECT m.id, p.organization_id, p.template_id, p.version_id, p.preset_id, 'running'
            FROM (SELECT * FROM prebuilds LIMIT 1) AS p
            CROSS JOIN (SELECT id FROM made WHERE right(name, 1) < '5') AS m
            """
        )
        await connection.execute("VACUUM ANALYZE prebuilds, workspaces, builds")
        statement, terms = ENDED.about(None, most_failures=7)
        cursor = await connection.execute(b"EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) " + statement, terms)
        plan = "\n".join(line for (line,) in await cursor.fetchall())

    assert "ix_prebuilds_ended" in plan
    assert "ix_prebuilds_marked" in plan
    assert "Seq Scan on prebuilds" not in plan
    assert "Seq Scan on workspaces" not in plan
    assert plan.splitlines()[0].endswith("(actual rows=2.00 loops=1)"), plan


async def test_replicas_remove_each_once(database: Database, organization: OrganizationId) -> None:
    for number in range(4):
        one = await make_pool(database, organization, template=f"t{number}")
        await make_ended(database, one, DAY)
        await make_ended(database, one, DAY, is_built=False)

    replicas = [Retention(database, keep_for=DAY) for _ in range(3)]
    first = sum(await asyncio.gather(*(each.run_once() for each in replicas)), Retained())
    again = await replicas[0].run_once()

    both = first + again
    assert (both.deleted, both.unbuilt, both.failed) == (4, 4, 0)
    assert len(await removals_told(database)) == 8


async def test_one_pool_that_fails_stops_no_other(database: Database, organization: OrganizationId) -> None:
    broken = await make_pool(database, organization, template="broken")
    await make_ended(database, broken, DAY)
    await make_ended(database, await make_pool(database, organization, template="sound"), DAY)
    async with database.transaction("test") as tx:
        await tx.run(b"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$")
        # DDL takes no parameters; the id is of our own making.
        await tx.execute(
            text(
                "CREATE TRIGGER refuse BEFORE UPDATE ON prebuilds FOR EACH ROW"
                f" WHEN (NEW.template_id = '{broken.template_id}'::uuid) EXECUTE FUNCTION refuse()"
            )
        )

    assert await Retention(database, keep_for=DAY).run_once() == Retained(deleted=1, failed=1)


async def test_failures_count_for_backoff_after_what_failed_was_removed(database: Database, pool: PoolKey) -> None:
    passes = reconciler(database)
    for is_built in (True, False):
        await make_ended(database, pool, is_built=is_built)
    assert (await passes.run_pass(EVERYTHING)).backing_off == 1

    await remove_all(database)

    statistics = await passes.run_pass(EVERYTHING)
    assert (statistics.backing_off, statistics.created) == (1, 0)


async def test_faults_of_the_template_count_for_the_hard_limit_after_what_failed_was_removed(
    database: Database, pool: PoolKey
) -> None:
    for _ in range(2):
        await make_ended(database, pool)
    async with database.transaction("test") as tx:
        await tx.execute(
            update(schema.Build).values(failure_class=FailureClass.TEMPLATE, created_at=func.now() - 50 * MINUTE)
        )

    await remove_all(database)

    limited = await reconciler(database, hard_limit=2).run_pass(EVERYTHING)
    assert (limited.backing_off, limited.created) == (0, 0)
    async with database.transaction("test") as tx:
        status = await tx.scalar(select(schema.Preset.status).where(schema.Preset.id == pool.preset_id))
    assert status is PresetStatus.HARD_LIMITED


async def remove_all(database: Database) -> None:
    """Remove all that failed, and have the deletes succeed."""
    await Retention(database, keep_for=timedelta(0)).run_once()
    for workspace_id in await prebuilds_left(database):
        await end_delete(database, workspace_id, BuildOutcome.SUCCEEDED)
    assert await prebuilds_left(database) == {}


async def test_a_removal_tells_the_daemons_and_whoever_looks_at_the_pool(
    database: Database, pool: PoolKey, retention: Retention
) -> None:
    due = await make_ended(database, pool, DAY)
    told: list[EventKind] = []
    database.on_commit(lambda rows: told.extend(row.event for row in rows))

    await retention.run_once()

    assert {EventKind.JOB_QUEUED, EventKind.BUILD_CHANGED} <= set(told)
    async with database.transaction("test") as tx:
        jobs = select(schema.Job.status).where(schema.Job.workspace_id == due, schema.Job.attempt == 0)
        assert (await tx.execute(jobs)).scalars().all() == [JobStatus.PENDING]


async def test_a_reconciler_that_runs_removes_what_was_kept_long_enough(
    database: Database, pool: PoolKey, reconcilers: Reconcilers
) -> None:
    due = await make_ended(database, pool, HOUR)

    await reconcilers.start(failed_retention=HOUR)

    async def is_deleting() -> bool:
        return (await prebuilds_left(database)).get(due) is PrebuildState.DELETING

    await eventually(is_deleting)


@pytest.mark.parametrize("kept", ["-1s", "31d"])
def test_a_time_to_keep_that_is_out_of_range_is_refused(reconcilers: Reconcilers, kept: str) -> None:
    assert reconcilers.settings().failed_retention == DAY
    with pytest.raises(ValidationError, match="failed_retention"):
        reconcilers.settings(failed_retention=kept)


async def test_what_is_too_much_for_one_run_follows_with_the_next(
    database: Database, pool: PoolKey, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prebuilds.reconciler.retention.MOST_OF_A_POOL", 2)
    all_due: Sequence[WorkspaceId] = [await make_ended(database, pool, DAY) for _ in range(3)]

    assert await retention.run_once() == Retained(deleted=2)
    assert await retention.run_once() == Retained(deleted=1)

    assert set(await prebuilds_left(database)) == set(all_due)
