"""Who is cancelled when a preset becomes inactive: first starts that no daemon has had, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import func, insert, select, update

from prebuilds.domain.builds import BuildOutcome, BuildReason, JobStatus, Transition
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import JobId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.provisioner.rules.lost_jobs import Patience
from prebuilds.provisioner.sweeps import sweep
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.jobs.canceling import request_cancel
from prebuilds.store.jobs.finishing import lock_job
from prebuilds.store.jobs.queueing import BuildOrder, queue_builds
from prebuilds.store.pool.beginnings import begin_build_of_prebuild
from prebuilds.store.pool.filling import mark_deleting
from prebuilds.store.pool.locks import lock_prebuild_and_workspace
from tests.support.builders import (
    Built,
    claim_prebuild,
    end_build,
    job_of,
    make_organization,
    make_pool,
    make_prebuild,
    make_starting_prebuild,
    make_user,
)
from tests.support.pools import Passes
from tests.support.waiting import until_waiting

Setting = Callable[[Passes], Awaitable[JobId]]
"""Brings a job about, and says which."""


@pytest_asyncio.fixture
async def passes(database: Database) -> Passes:
    """Passes over one pool that wants none, so that only what a test makes is there."""
    pool = await make_pool(database, await make_organization(database), instances=0)
    return Passes(database, pool)


async def deactivate(passes: Passes) -> None:
    """No version is active any more."""
    await passes.set_template(active_version_id=None)


async def first_start(passes: Passes) -> Built:
    return await make_starting_prebuild(passes.database, passes.pool)


async def of_an_inactive_version(passes: Passes) -> JobId:
    await deactivate(passes)
    return (await first_start(passes)).job_id


async def of_a_deleted_template(passes: Passes) -> JobId:
    await passes.set_template(deleted=True)
    return (await first_start(passes)).job_id


async def of_a_deprecated_template(passes: Passes) -> JobId:
    await passes.set_template(deprecated="use the other one")
    return (await first_start(passes)).job_id


async def of_the_active_version(passes: Passes) -> JobId:
    await passes.set_preset(desired_instances=1)
    return (await first_start(passes)).job_id


async def a_second_build(passes: Passes) -> JobId:
    built = await make_prebuild(passes.database, passes.pool)
    person = await make_user(passes.database)
    await deactivate(passes)
    async with passes.database.transaction("test") as tx:
        await lock_prebuild_and_workspace(tx, built.workspace_id)
        await begin_build_of_prebuild(tx, built.workspace_id, Transition.START)
        order = BuildOrder(built.workspace_id, Transition.START, BuildReason.USER, person)
        (queued,) = await queue_builds(tx, [order])
    return queued.job_id


async def a_delete(passes: Passes) -> JobId:
    built = await make_prebuild(passes.database, passes.pool)
    await deactivate(passes)
    async with passes.database.transaction("test") as tx:
        (queued,) = await mark_deleting(
            tx, passes.pool, [built.workspace_id], kind=PoolEventKind.DELETED, reason="inactive"
        )
    return queued.job_id


async def a_job_that_runs(passes: Passes) -> JobId:
    job_id = await of_an_inactive_version(passes)
    await take(passes.database, job_id)
    return job_id


async def a_job_that_is_given_up(passes: Passes) -> JobId:
    job_id = await a_job_that_runs(passes)
    async with passes.database.transaction("test") as tx:
        locked = await lock_job(tx, job_id)
        assert locked is not None
        await request_cancel(tx, locked[1])
    return job_id


async def a_job_whose_daemon_was_lost(passes: Passes) -> JobId:
    """It waits again, but something may have been built."""
    job_id = await of_an_inactive_version(passes)
    await take(passes.database, job_id, lease=-timedelta(minutes=1))
    assert (await sweep(passes.database, Patience(timedelta(minutes=1), timedelta(hours=1), 3))).put_back == 1
    return job_id


async def a_workspace_of_a_person(passes: Passes) -> JobId:
    """Built cold, by the same preset."""
    person, workspace_id = await make_user(passes.database), WorkspaceId(uuid4())
    await deactivate(passes)
    async with passes.database.transaction("test") as tx:
        await tx.execute(
            insert(schema.Workspace).values(
                id=workspace_id,
                organization_id=passes.pool.organization_id,
                owner_id=person,
                name="mine",
                template_id=passes.pool.template_id,
            )
        )
        order = BuildOrder(
            workspace_id,
            Transition.START,
            BuildReason.USER,
            person,
            version_id=passes.pool.version_id,
            preset_id=passes.pool.preset_id,
            parameters={},
        )
        (queued,) = await queue_builds(tx, [order])
    return queued.job_id


async def a_claimed_workspace(passes: Passes) -> JobId:
    await passes.set_preset(desired_instances=1)
    await first_start(passes)
    await passes.stage.make_eligible(passes.preset_id)
    claimed = await claim_prebuild(passes.database, passes.pool, await make_user(passes.database))
    await deactivate(passes)
    return await job_of(passes.database, claimed.build_id)


@pytest.mark.parametrize("make", [of_an_inactive_version, of_a_deleted_template, of_a_deprecated_template])
async def test_a_first_start_that_waits_is_canceled_with_all_that_belongs_to_it(passes: Passes, make: Setting) -> None:
    job_id = await make(passes)
    told: list[EventKind] = []
    passes.database.on_commit(lambda rows: told.extend(row.event for row in rows))

    statistics = await passes.run()

    assert (statistics.canceled, statistics.deleted, statistics.created) == (1, 0, 0)
    left = await look(passes.database, job_id)
    assert left == Left(JobStatus.CANCELED, BuildOutcome.CANCELED, is_removed=True, is_in_pool=False, is_ended=True)
    assert ("canceled", "inactive") in await passes.history()
    assert told == [EventKind.BUILD_CHANGED]
    assert (await passes.run()).reconciled == 0


@pytest.mark.parametrize(
    "make, status",
    [
        (of_the_active_version, JobStatus.PENDING),
        (a_second_build, JobStatus.PENDING),
        (a_delete, JobStatus.PENDING),
        (a_job_that_runs, JobStatus.RUNNING),
        (a_job_that_is_given_up, JobStatus.CANCELING),
        (a_job_whose_daemon_was_lost, JobStatus.PENDING),
        (a_workspace_of_a_person, JobStatus.PENDING),
        (a_claimed_workspace, JobStatus.PENDING),
    ],
)
async def test_nothing_else_is_canceled(passes: Passes, make: Setting, status: JobStatus) -> None:
    job_id = await make(passes)
    before = await look(passes.database, job_id)

    statistics = await passes.run()

    assert (statistics.canceled, statistics.deleted, statistics.created, statistics.failed) == (0, 0, 0, 0)
    assert await look(passes.database, job_id) == before
    assert (before.status, before.outcome, before.is_removed) == (status, None, False)


async def test_what_was_canceled_or_not_of_one_pool_is_told_apart(passes: Passes) -> None:
    running = await make_prebuild(passes.database, passes.pool)
    waiting = [await first_start(passes) for _ in range(3)]
    taken = await first_start(passes)
    await take(passes.database, taken.job_id)
    await deactivate(passes)

    statistics = await passes.run()

    assert (statistics.canceled, statistics.deleted) == (3, 1)
    assert {(await look(passes.database, each.job_id)).status for each in waiting} == {JobStatus.CANCELED}
    assert await passes.stage.states(passes.preset_id) == ["deleting", "starting"]
    await end_build(passes.database, taken.job_id)
    assert (await passes.run()).deleted == 1
    assert running.workspace_id != taken.workspace_id


async def test_a_job_that_a_daemon_takes_meanwhile_goes_on(passes: Passes, database_url: str) -> None:
    taken, waiting = [await first_start(passes) for _ in range(2)]
    await deactivate(passes)
    async with (
        await psycopg.AsyncConnection.connect(database_url) as daemon,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
    ):
        await daemon.execute(
            "UPDATE jobs SET status = 'running', attempt = 1, lease_id = gen_random_uuid(),"
            " lease_expires_at = now() + interval '1 min' WHERE id = %s",
            [taken.job_id],
        )
        reconciling = asyncio.create_task(passes.run())
        await until_waiting(observer)
        await daemon.commit()
        statistics = await reconciling

    assert statistics.canceled == 1
    assert (await look(passes.database, taken.job_id)).status is JobStatus.RUNNING
    assert not (await look(passes.database, taken.job_id)).is_removed
    assert (await look(passes.database, waiting.job_id)).status is JobStatus.CANCELED


async def test_a_failure_to_cancel_stops_no_other_action_and_leaves_nothing_half_done(passes: Passes) -> None:
    await make_prebuild(passes.database, passes.pool)
    waiting = await first_start(passes)
    await deactivate(passes)
    before = await look(passes.database, waiting.job_id)
    async with passes.database.transaction("test") as tx:
        # Late: the job and the build are cancelled by then.
        await tx.run(b"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$")
        await tx.run(
            b"CREATE TRIGGER refuse BEFORE UPDATE OF deleted ON workspaces FOR EACH ROW EXECUTE FUNCTION refuse()"
        )

    statistics = await passes.run()

    assert (statistics.canceled, statistics.deleted, statistics.failed) == (0, 1, 0)
    assert await look(passes.database, waiting.job_id) == before
    assert "canceled" not in {kind for kind, _ in await passes.history()}
    async with passes.database.transaction("test") as tx:
        await tx.run(b"DROP TRIGGER refuse ON workspaces")
    assert (await passes.run()).canceled == 1


@dataclass(frozen=True)
class Left:
    """A job and what belongs to it."""

    status: JobStatus
    outcome: BuildOutcome | None
    is_removed: bool
    is_in_pool: bool
    is_ended: bool


async def look(database: Database, job_id: JobId) -> Left:
    job, build, workspace, prebuild = schema.Job, schema.Build, schema.Workspace, schema.Prebuild
    columns = (
        select(
            job.status,
            build.outcome,
            workspace.deleted,
            prebuild.workspace_id.is_not(None),
            job.finished_at.is_not(None) & build.finished_at.is_not(None),
        )
        .join(build, build.id == job.build_id)
        .join(workspace, workspace.id == job.workspace_id)
        .outerjoin(prebuild, prebuild.workspace_id == workspace.id)
        .where(job.id == job_id)
    )
    async with database.read("test") as tx:
        return Left(*(await tx.execute(columns)).one())


async def take(database: Database, job_id: JobId, *, lease: timedelta = timedelta(minutes=1)) -> None:
    """Let a daemon have the job."""
    values = {"status": JobStatus.RUNNING, "attempt": 1, "lease_id": uuid4(), "lease_expires_at": func.now() + lease}
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Job).where(schema.Job.id == job_id).values(**values))
