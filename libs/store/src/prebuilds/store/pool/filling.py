"""How the reconciler fills and thins a pool: create, mark for deletion, cancel what is still queued."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from prebuilds.domain.builds import BuildReason, Transition
from prebuilds.domain.ids import (
    SYSTEM_USER_ID,
    BuildId,
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
from prebuilds.store.outbox.writer import append_many
from prebuilds.store.pool.locks import lock_prebuilds, lock_workspaces
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
    tx: Transaction, pool: PoolKey, count: int, *, parameters: Mapping[str, str], reason: str, daily_cost: int = 0
) -> Sequence[QueuedBuild]:
    """Make `count` prebuilds of a preset that the caller has locked, each with its first start build queued.

    `daily_cost` is what each is charged until the completion of its build tells (behaviour section 9). Inserts
    workspaces, pool rows, builds, jobs and agents; locks nothing that anybody else could hold.
    """
    if count == 0:
        return ()
    ids = [WorkspaceId(uuid4()) for _ in range(count)]
    names = [prebuild_name(secrets.token_bytes(PREBUILD_NAME_BYTES)) for _ in ids]
    await tx.run(
        _queries["create_prebuilds"],
        {
            "workspace_ids": ids,
            "names": names,
            "preset_id": pool.preset_id,
            "owner_id": SYSTEM_USER_ID,
            "daily_cost": daily_cost,
        },
    )
    await record_pool_events(tx, [_event(pool, PoolEventKind.CREATED, reason, workspace_id) for workspace_id in ids])
    orders = [
        BuildOrder(
            workspace_id,
            Transition.START,
            BuildReason.PREBUILD,
            SYSTEM_USER_ID,
            version_id=pool.version_id,
            preset_id=pool.preset_id,
            parameters=parameters,
            daily_cost=daily_cost,
        )
        for workspace_id in ids
    ]
    return await queue_builds(tx, orders)


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
    unclaimed = await lock_prebuilds(tx, workspace_ids)
    if not unclaimed:
        return ()
    await lock_workspaces(tx, sorted(unclaimed))
    cursor = await tx.run(_queries["mark_deleting"], {"workspace_ids": sorted(unclaimed)})
    marked = {WorkspaceId(workspace_id): is_first for workspace_id, is_first in await cursor.fetchall()}
    await record_pool_events(
        tx, [_event(pool, kind, reason, workspace_id) for workspace_id, is_first in marked.items() if is_first]
    )
    why = build_reason if initiator_id == SYSTEM_USER_ID else BuildReason.USER
    return await queue_builds(
        tx, [BuildOrder(workspace_id, Transition.DELETE, why, initiator_id) for workspace_id in marked]
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
    unclaimed = await lock_prebuilds(tx, workspace_ids)
    if not unclaimed:
        return ()
    await lock_workspaces(tx, sorted(unclaimed))
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
