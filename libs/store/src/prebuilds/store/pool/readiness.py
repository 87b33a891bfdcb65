"""Whether prebuilds are ready (behaviour section 3): their start has succeeded and all their agents are ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId, WorkspaceId
from prebuilds.store.outbox.writer import Event, append_many
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


async def refresh_readiness(tx: Transaction, workspace_ids: Sequence[WorkspaceId]) -> None:
    """Compute readiness anew for locked pool rows, in a statement later than what may have changed it."""
    cursor = await tx.run(_queries["refresh_readiness"], {"workspace_ids": list(workspace_ids)})
    news = [
        Event(
            EventKind.AGENT_READY,
            WorkspaceId(workspace_id),
            OrganizationId(organization_id),
            {"workspace_id": str(workspace_id), "preset_id": str(preset_id)},
        )
        for workspace_id, organization_id, preset_id, is_ready in await cursor.fetchall()
        if is_ready
    ]
    await append_many(tx, news)
