"""The first two steps of every change to a workspace: its pool row, then the workspace (design section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prebuilds.domain.ids import BuildId, OrganizationId, TemplateId, UserId, WorkspaceId
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


@dataclass(frozen=True, slots=True)
class LockedWorkspace:
    """A workspace as it is under its lock."""

    workspace_id: WorkspaceId
    organization_id: OrganizationId
    owner_id: UserId
    name: str
    template_id: TemplateId
    claim_generation: int
    handover_generation: int
    latest_build_id: BuildId | None
    deleted: bool


async def lock_prebuilds(tx: Transaction, workspace_ids: Sequence[WorkspaceId]) -> frozenset[WorkspaceId]:
    """Lock the pool rows of these workspaces in the order of their ids; answers which are still unclaimed."""
    cursor = await tx.run(_queries["lock_prebuilds"], {"workspace_ids": list(workspace_ids)})
    return frozenset(WorkspaceId(row[0]) for row in await cursor.fetchall())


async def lock_workspaces(tx: Transaction, workspace_ids: Sequence[WorkspaceId]) -> Sequence[LockedWorkspace]:
    """Lock these workspaces in the order of their ids; whoever may need their pool rows has locked those before."""
    return await tx.fetch_all(_queries["lock_workspaces"], {"workspace_ids": list(workspace_ids)}, row=LockedWorkspace)


async def lock_prebuilds_and_workspaces(
    tx: Transaction, workspace_ids: Sequence[WorkspaceId]
) -> frozenset[WorkspaceId]:
    """Lock pool rows and their workspaces by both steps, in one statement; answers which are still unclaimed.

    The workspaces are sorted before the first of them is locked, and for that all pool rows are read, locked.
    """
    cursor = await tx.run(_queries["lock_prebuilds_and_workspaces"], {"workspace_ids": list(workspace_ids)})
    return frozenset(WorkspaceId(row[0]) for row in await cursor.fetchall())


async def lock_prebuild_and_workspace(tx: Transaction, workspace_id: WorkspaceId) -> LockedWorkspace | None:
    """Lock one workspace by both steps; None where there is none of this id."""
    await lock_prebuilds(tx, [workspace_id])
    locked = await lock_workspaces(tx, [workspace_id])
    return locked[0] if locked else None
