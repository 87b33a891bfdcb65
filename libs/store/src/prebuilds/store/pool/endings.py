"""What the end of a build leaves of a prebuild, and the end of the prebuild itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prebuilds.domain.builds import FailureClass
from prebuilds.domain.ids import PresetId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind, PrebuildState
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.pool_events import PoolEvent, record_pool_events
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


async def end_build_of_prebuild(
    tx: Transaction,
    workspace_id: WorkspaceId,
    state: PrebuildState,
    *,
    failure_class: FailureClass | None = None,
    daily_cost: int | None = None,
) -> PoolKey | None:
    """Move a locked pool row to what its finished build left; answers its pool, None for what is no prebuild.

    Readiness is refreshed by the caller in a later statement.
    """
    cursor = await tx.run(
        _queries["end_build"],
        {"workspace_id": workspace_id, "state": state, "failure_class": failure_class, "daily_cost": daily_cost},
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    return await tx.fetch_one(_queries["preset_of_history"], {"preset_id": PresetId(row[0])}, row=PoolKey)


async def remove_workspaces(tx: Transaction, workspace_ids: Sequence[WorkspaceId]) -> None:
    """Remove locked workspaces whose resources are gone, or never were, and their pool rows."""
    await tx.run(_queries["remove"], {"workspace_ids": list(workspace_ids)})


async def remove_unbuilt(
    tx: Transaction, pool: PoolKey, workspace_ids: Sequence[WorkspaceId], *, reason: str
) -> frozenset[WorkspaceId]:
    """Remove those of these prebuilds of which nothing was ever built, without a build; answers which.

    The caller holds the locks of pool rows and workspaces. What a daemon has had, or still may take, is left alone.
    Builds stay, and with them the history of failures; one that was marked for deletion is in history already.
    """
    cursor = await tx.run(_queries["find_unbuilt"], {"workspace_ids": list(workspace_ids)})
    unbuilt = {WorkspaceId(workspace_id): is_first for workspace_id, is_first in await cursor.fetchall()}
    if not unbuilt:
        return frozenset()
    await remove_workspaces(tx, list(unbuilt))
    await record_pool_events(
        tx,
        [
            PoolEvent(
                pool.organization_id,
                pool.template_id,
                pool.preset_name,
                PoolEventKind.DELETED,
                reason=reason,
                workspace_id=workspace_id,
            )
            for workspace_id, is_first in unbuilt.items()
            if is_first
        ],
    )
    return frozenset(unbuilt)
