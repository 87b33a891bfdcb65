"""The history of pools: append-only, written in the transaction of what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert

from prebuilds.domain.builds import FailureClass
from prebuilds.domain.ids import OrganizationId, TemplateId, UserId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.store import schema
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """Something that happened to a pool, under its template and preset *name*."""

    organization_id: OrganizationId
    template_id: TemplateId
    preset_name: str
    kind: PoolEventKind
    reason: str = ""
    failure_class: FailureClass | None = None
    workspace_id: WorkspaceId | None = None
    user_id: UserId | None = None


async def record_pool_events(tx: Transaction, events: Sequence[PoolEvent]) -> None:
    """Append these to the history; locks nothing."""
    if events:
        await tx.execute(
            insert(schema.PoolEvent).values(
                [
                    {
                        "organization_id": event.organization_id,
                        "template_id": event.template_id,
                        "preset_name": event.preset_name,
                        "kind": event.kind,
                        "reason": event.reason,
                        "failure_class": event.failure_class,
                        "workspace_id": event.workspace_id,
                        "user_id": event.user_id,
                    }
                    for event in events
                ]
            )
        )
