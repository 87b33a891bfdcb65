"""What an agent runs by in a generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from prebuilds.domain.ids import OrganizationId, UserId, WorkspaceId
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.agent_gateway.queries")


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """The build that a manifest is made of; owner and workspace name are those of its queueing."""

    organization_id: OrganizationId
    workspace_id: WorkspaceId
    workspace_name: str
    owner_id: UserId
    owner_name: str
    template_name: str
    parameters: Mapping[str, str]
    process: Mapping[str, Any]
    """The block `process` of the version's manifest, empty where the backend has none (behaviour section 1)."""


async def read_manifest(tx: Transaction, workspace_id: WorkspaceId, generation: int) -> StoredManifest | None:
    """The manifest of the newest start build whose generation is at most that (behaviour section 8)."""
    return await tx.fetch_one(
        _queries["manifest"], {"workspace_id": workspace_id, "generation": generation}, row=StoredManifest
    )
