"""Reads workspaces; every reader of several says of which organisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from prebuilds.claims.queries.filters import BuildFilter, ClaimFilter, WorkspaceFilter
from prebuilds.claims.queries.naming import Named
from prebuilds.claims.queries.views import (
    BuildView,
    ClaimView,
    WorkspaceView,
    build_of,
    claim_of,
    workspace_of,
)
from prebuilds.claims.rules.positions import Position
from prebuilds.domain.ids import (
    BuildId,
    JobId,
    OrganizationId,
    UserId,
    WorkspaceId,
)
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.claims.queries")


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose a workspace is at this moment."""

    organization_id: OrganizationId
    owner_id: UserId
    name: str
    deleted: bool
    is_prebuild: bool


@dataclass(frozen=True, slots=True)
class BuildPlace:
    """Where a build belongs."""

    workspace_id: WorkspaceId
    job_id: JobId | None


@dataclass(frozen=True, slots=True)
class _Listed:
    id: WorkspaceId
    created_at: datetime


async def find_organization(tx: Transaction, organization: Named) -> OrganizationId | None:
    """Find an organisation that is not deleted."""
    parameters = {"id": organization.id, "name": organization.name}
    found = await tx.fetch_one(_queries["organization"], parameters, row=UUID)
    return None if found is None else OrganizationId(found)


async def whose_workspace(tx: Transaction, workspace_id: WorkspaceId) -> Whose | None:
    """Find whose a workspace is, without a lock; a claim may change it a moment later."""
    return await tx.fetch_one(_queries["whose_workspace"], {"workspace_id": workspace_id}, row=Whose)


async def read_workspaces(
    tx: Transaction, workspace_ids: Sequence[WorkspaceId], *, last: bool = False
) -> list[WorkspaceView]:
    """Read these workspaces, in the order of the ids given; those that do not exist are left out."""
    cursor = await tx.run(_queries["workspaces"], {"workspace_ids": list(workspace_ids)}, last=last)
    found = {row["id"]: workspace_of(row) for row in await _rows(cursor)}
    return [found[workspace_id] for workspace_id in workspace_ids if workspace_id in found]


async def list_workspaces(
    tx: Transaction, wanted: WorkspaceFilter, *, after: Position | None, limit: int
) -> list[WorkspaceView]:
    """Read one page, newest first."""
    parameters = {
        "organization_id": wanted.organization_id,
        "only_owner_id": wanted.only_owner_id,
        "show_deleted": wanted.show_deleted,
        "name": wanted.name,
        "owner_id": wanted.owner.id,
        "owner_name": wanted.owner.name,
        "template_id": wanted.template.id,
        "template_name": wanted.template.name,
        "preset_id": wanted.preset_id,
        "standings": None if wanted.standings is None else list(wanted.standings),
        "dormant": wanted.dormant,
        "is_prebuild": wanted.is_prebuild,
        **_page(after, limit),
    }
    page = await tx.fetch_all(_queries["list_workspaces"], parameters, row=_Listed)
    return await read_workspaces(tx, [each.id for each in page]) if page else []


async def list_builds(
    tx: Transaction, wanted: BuildFilter, *, after: Position | None = None, limit: int = 1
) -> list[BuildView]:
    """Read one page, newest first."""
    parameters = {
        "workspace_id": wanted.workspace_id,
        "build_id": wanted.build_id,
        "transition": wanted.transition,
        "status": wanted.status,
        "reason": wanted.reason,
        **_page(after, limit),
    }
    return [build_of(row) for row in await _rows(await tx.run(_queries["builds"], parameters))]


async def list_claims(
    tx: Transaction, wanted: ClaimFilter, *, after: Position | None = None, limit: int = 1
) -> list[ClaimView]:
    """Read one page, newest first."""
    parameters = {
        "organization_id": wanted.organization_id,
        "claim_id": wanted.claim_id,
        "only_owner_id": wanted.only_owner_id,
        "owner_id": wanted.owner.id,
        "owner_name": wanted.owner.name,
        "state": wanted.state,
        "unacknowledged": wanted.unacknowledged,
        "workspace_id": wanted.workspace_id,
        "template_id": wanted.template.id,
        "template_name": wanted.template.name,
        "preset_id": wanted.preset_id,
        **_page(after, limit),
    }
    return [claim_of(row) for row in await _rows(await tx.run(_queries["claims"], parameters))]


async def find_build(tx: Transaction, build_id: BuildId) -> BuildPlace | None:
    """Find where a build belongs."""
    return await tx.fetch_one(_queries["workspace_of_build"], {"build_id": build_id}, row=BuildPlace)


async def pool_of(tx: Transaction, workspace_id: WorkspaceId) -> PoolKey | None:
    """Name the pool that a prebuild belongs to; None for what is no prebuild."""
    return await tx.fetch_one(_queries["pool_of_prebuild"], {"workspace_id": workspace_id}, row=PoolKey)


async def has_workspace_named(tx: Transaction, owner_id: UserId, name: str) -> bool:
    """Tell whether the owner has a workspace of this name now; only the insert decides."""
    return bool(await tx.fetch_one(_queries["name_taken"], {"owner_id": owner_id, "name": name}, row=bool))


def _page(after: Position | None, limit: int) -> dict[str, Any]:
    return {"after_time": after and after.time, "after_id": after and after.id, "limit": limit}


async def _rows(cursor: AsyncCursor[TupleRow]) -> list[dict[str, Any]]:
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
