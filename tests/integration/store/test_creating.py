"""What is written of a new prebuild, which one statement writes, is what queueing its first build would write."""

from __future__ import annotations

from typing import Any, cast
from uuid import uuid4

from sqlalchemy import Table, insert, select

from prebuilds.domain.builds import BuildReason, Transition
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import SYSTEM_USER_ID, WorkspaceId
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.jobs.queueing import BuildOrder, QueuedBuild, queue_builds
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.pool.filling import PoolKey, create_prebuilds
from prebuilds.store.transactions import Transaction
from tests.support.builders import make_organization, make_pool

PARAMETERS = {"size": "small"}
OWN = {"id", "workspace_id", "build_id", "latest_build_id", "name", "workspace_name"}
"""Columns that differ because the things do."""


async def queue_first_build(tx: Transaction, pool: PoolKey) -> QueuedBuild:
    workspace_id = WorkspaceId(uuid4())
    await tx.execute(
        insert(schema.Workspace).values(
            id=workspace_id,
            organization_id=pool.organization_id,
            owner_id=SYSTEM_USER_ID,
            name="other",
            template_id=pool.template_id,
        )
    )
    order = BuildOrder(
        workspace_id,
        Transition.START,
        BuildReason.PREBUILD,
        SYSTEM_USER_ID,
        version_id=pool.version_id,
        preset_id=pool.preset_id,
        parameters=PARAMETERS,
        daily_cost=7,
    )
    (queued,) = await queue_builds(tx, [order])
    return queued


async def rows_of(tx: Transaction, build: QueuedBuild) -> dict[str, list[dict[str, Any]]]:
    agents = schema.Agent.workspace_id == build.workspace_id
    found: dict[str, list[dict[str, Any]]] = {}
    for model, condition, own in (
        (schema.Workspace, schema.Workspace.id == build.workspace_id, OWN),
        (schema.Build, schema.Build.id == build.build_id, OWN),
        (schema.Job, schema.Job.id == build.job_id, OWN),
        (schema.Agent, agents, OWN - {"name"}),
    ):
        table = cast("Table", model.__table__)
        rows = (await tx.execute(select(table).where(condition))).mappings()
        found[table.name] = sorted(
            ({str(name): value for name, value in row.items() if name not in own} for row in rows), key=str
        )
    return found


def without_ids(row: OutboxRow, build: QueuedBuild) -> tuple[object, ...]:
    assert row.payload == {"workspace_id": str(build.workspace_id), "build_id": str(build.build_id)}
    assert row.subject_id == build.job_id
    return row.event, row.organization_id, row.traceparent


async def test_a_new_prebuild_has_the_rows_that_queueing_its_build_writes(database: Database) -> None:
    pool = await make_pool(database, await make_organization(database), agents=("main", "side"))

    async with database.transaction("test") as tx:
        (created,) = await create_prebuilds(tx, pool, 1, parameters=PARAMETERS, reason="test", daily_cost=7)
        queued = await queue_first_build(tx, pool)
        ours, theirs = await rows_of(tx, created), await rows_of(tx, queued)
        appended = [without_ids(row, build) for row, build in zip(tx.appended, (created, queued), strict=True)]

    assert ours == theirs
    assert {name: len(rows) for name, rows in ours.items()} == {"workspaces": 1, "builds": 1, "jobs": 1, "agents": 2}
    assert appended[0] == appended[1] == (EventKind.JOB_QUEUED, pool.organization_id, None)
    assert (created.number, created.preset_id, created.owner_id, created.organization_id) == (
        queued.number,
        queued.preset_id,
        queued.owner_id,
        queued.organization_id,
    )


async def test_events_are_stored_as_they_are_handed_to_the_relay(database: Database) -> None:
    pool = await make_pool(database, await make_organization(database))

    async with database.transaction("test") as tx:
        await create_prebuilds(tx, pool, 3, parameters=PARAMETERS, reason="test")
        columns = (schema.Outbox.id, schema.Outbox.event, schema.Outbox.subject_id, schema.Outbox.payload)
        stored = {tuple(map(str, row)) for row in await tx.execute(select(*columns))}
        handed = {tuple(map(str, (row.id, row.event, row.subject_id, dict(row.payload)))) for row in tx.appended}

    assert {row[:3] for row in stored} == {row[:3] for row in handed}
    assert len(handed) == 3


async def test_nothing_is_made_of_none(database: Database) -> None:
    pool = await make_pool(database, await make_organization(database))

    async with database.transaction("test") as tx:
        assert await create_prebuilds(tx, pool, 0, parameters=PARAMETERS, reason="test") == ()
        assert not tx.appended
