"""How the reconciler fills and thins a pool: create, mark for deletion, cancel what is still queued."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from prebuilds.domain.builds import SYSTEM_PRIORITY, BuildReason, Transition
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import (
    SYSTEM_USER_ID,
    BuildId,
    JobId,
    OrganizationId,
    PresetId,
    TemplateId,
    UserId,
    VersionId,
    WorkspaceId,
)
from prebuilds.domain.names import PREBUILD_NAME_BYTES, prebuild_name
from prebuilds.domain.pools import PoolEventKind
from prebuilds.store.jobs.news import build_changed
from prebuilds.store.jobs.queueing import BuildOrder, QueuedBuild, queue_builds
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.outbox.writer import append_many
from prebuilds.store.pool.locks import lock_prebuilds_and_workspaces
from prebuilds.store.pool_events import PoolEvent, record_pool_events
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


@dataclass(frozen=True, slots=True)
class PoolKey:
    """The preset whose pool is filled, with the names that its history is kept under."""

    organization_id: OrganizationId
    template_id: TemplateId
    version_id: VersionId
    preset_id: PresetId
    preset_name: str


async def create_prebuilds(
    tx: Transaction,
    pool: PoolKey,
    count: int,
    *,
    parameters: Mapping[str, str],
    reason: str,
    daily_cost: int = 0,
    last: bool = False,
) -> Sequence[QueuedBuild]:
    """Make `count` prebuilds of a preset that the caller has locked, each with its first start build queued.

    `daily_cost` is what each is charged until the completion of its build tells (behaviour section 9). Locks nothing
    that anybody else could hold; commits with `last`. One statement, since pools are filled by thousands: what
    `queue_builds` would write of a first build is written with the workspace that it is for; a test holds the two
    together.
    """
    if count == 0:
        return ()
    builds = [
        QueuedBuild(
            BuildId(uuid4()),
            JobId(uuid4()),
            WorkspaceId(uuid4()),
            pool.organization_id,
            1,
            pool.preset_id,
            SYSTEM_USER_ID,
        )
        for _ in range(count)
    ]
    event_ids = [uuid4() for _ in builds]
    traceparent = tx.database.trace_context()
    at = await tx.fetch_one(
        _queries["create_prebuilds"],
        {
            "workspace_ids": [build.workspace_id for build in builds],
            "names": [prebuild_name(secrets.token_bytes(PREBUILD_NAME_BYTES)) for _ in builds],
            "build_ids": [build.build_id for build in builds],
            "job_ids": [build.job_id for build in builds],
            "event_ids": event_ids,
            "preset_id": pool.preset_id,
            "owner_id": SYSTEM_USER_ID,
            "reason": reason,
            "parameters": Jsonb(dict(parameters)),
            "daily_cost": daily_cost,
            "priority": SYSTEM_PRIORITY,
            "traceparent": traceparent,
        },
        row=datetime,
        last=last,
    )
    assert at is not None, "a SELECT without FROM has one row"  # noqa: S101 - what SQL promises
    for event_id, build in zip(event_ids, builds, strict=True):
        payload = {"workspace_id": str(build.workspace_id), "build_id": str(build.build_id)}
        tx.appended.append(
            OutboxRow(event_id, EventKind.JOB_QUEUED, build.job_id, build.organization_id, payload, traceparent, at)
        )
    return builds


async def mark_deleting(
    tx: Transaction,
    pool: PoolKey,
    workspace_ids: Sequence[WorkspaceId],
    *,
    kind: PoolEventKind,
    reason: str,
    initiator_id: UserId = SYSTEM_USER_ID,
    build_reason: BuildReason = BuildReason.PREBUILD,
) -> Sequence[QueuedBuild]:
    """Set the delete mark of these prebuilds and queue their delete builds; from the commit on nobody claims them.

    Locks pool rows, then workspaces, by id. Those claimed or being built meanwhile are left alone (behaviour section
    5). One whose delete came to nothing keeps its mark and gets another delete build; history counts it once. What a
    person asked for is that person's build, whatever `build_reason` says of the system's own.
    """
    unclaimed = await lock_prebuilds_and_workspaces(tx, workspace_ids)
    if not unclaimed:
        return ()
    marked = await tx.fetch_all(
        _queries["mark_deleting"],
        {
            "workspace_ids": sorted(unclaimed),
            "organization_id": pool.organization_id,
            "template_id": pool.template_id,
            "preset_name": pool.preset_name,
            "kind": kind.value,
            "reason": reason,
        },
        row=UUID,
    )
    why = build_reason if initiator_id == SYSTEM_USER_ID else BuildReason.USER
    return await queue_builds(
        tx, [BuildOrder(WorkspaceId(workspace_id), Transition.DELETE, why, initiator_id) for workspace_id in marked]
    )


async def find_pending(tx: Transaction, pool: PoolKey) -> Sequence[WorkspaceId]:
    """Find, without locks, the prebuilds whose first start no daemon has taken, nor had and lost."""
    found = await tx.fetch_all(_queries["find_pending"], {"preset_id": pool.preset_id}, row=UUID)
    return [WorkspaceId(each) for each in found]


async def cancel_pending(
    tx: Transaction, pool: PoolKey, workspace_ids: Sequence[WorkspaceId], *, reason: str
) -> Sequence[WorkspaceId]:
    """Cancel those of these first starts of an inactive preset that no daemon has taken, and remove their workspaces.

    Nothing was built, so no daemon is needed. Locks pool rows, workspaces, builds, jobs by id; a job that a daemon
    takes meanwhile goes on, and so does everything of a preset that became active meanwhile (behaviour section 5).
    """
    unclaimed = await lock_prebuilds_and_workspaces(tx, workspace_ids)
    if not unclaimed:
        return ()
    cursor = await tx.run(_queries["cancel_pending"], {"workspace_ids": sorted(unclaimed), "reason": reason})
    canceled = {WorkspaceId(workspace_id): BuildId(build_id) for workspace_id, build_id in await cursor.fetchall()}
    await tx.run(_queries["remove"], {"workspace_ids": sorted(canceled)})
    await record_pool_events(
        tx, [_event(pool, PoolEventKind.CANCELED, reason, workspace_id) for workspace_id in canceled]
    )
    await append_many(
        tx,
        [
            build_changed(
                workspace_id,
                pool.organization_id,
                build_id=build_id,
                preset_id=pool.preset_id,
                owner_id=SYSTEM_USER_ID,
            )
            for workspace_id, build_id in canceled.items()
        ],
    )
    return tuple(canceled)


def _event(pool: PoolKey, kind: PoolEventKind, reason: str, workspace_id: WorkspaceId) -> PoolEvent:
    return PoolEvent(
        pool.organization_id, pool.template_id, pool.preset_name, kind, reason=reason, workspace_id=workspace_id
    )
