"""The history of pools: append-only, written in the transaction of what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prebuilds.domain.builds import FailureClass
from prebuilds.domain.ids import OrganizationId, TemplateId, UserId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store")


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
    """Append these to the history in one statement; with no events nothing is sent. Locks nothing."""
    if events:
        await tx.run(
            _queries["record_pool_events"],
            {
                "organization_ids": [event.organization_id for event in events],
                "template_ids": [event.template_id for event in events],
                "preset_names": [event.preset_name for event in events],
                "kinds": [event.kind.value for event in events],
                "reasons": [event.reason for event in events],
                "failure_classes": [event.failure_class and event.failure_class.value for event in events],
                "workspace_ids": [event.workspace_id for event in events],
                "user_ids": [event.user_id for event in events],
            },
        )
