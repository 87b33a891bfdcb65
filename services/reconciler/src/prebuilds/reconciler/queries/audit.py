"""Reading the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from prebuilds.domain.ids import OrganizationId
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


@dataclass(frozen=True, slots=True)
class AuditRow:
    """What somebody did."""

    id: int
    organization_id: OrganizationId | None
    created_at: datetime
    principal: str
    """Kind and id, with a colon between."""
    principal_name: str
    action: str
    resource: str
    resource_id: UUID
    resource_name: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events; what is None does not matter."""

    start: datetime | None = None
    """Not before this moment."""
    end: datetime | None = None
    """Before this moment."""
    actor: str | None = None
    """By name or id."""
    actor_kind: str | None = None
    action: str | None = None
    resource: str | None = None
    resource_id: UUID | None = None


async def find_audit_events(
    tx: Transaction, organization_id: OrganizationId | None, wanted: AuditFilter, *, before: int | None, limit: int
) -> Sequence[AuditRow]:
    """Find events, newest first, of an organisation or of all; `before` is the last id of the page before."""
    parameters = {
        "organization_id": organization_id,
        "start": wanted.start,
        "end": wanted.end,
        "actor": wanted.actor,
        "actor_kind": wanted.actor_kind,
        "action": wanted.action,
        "resource": wanted.resource,
        "resource_id": wanted.resource_id,
        "before": before,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_audit_events"], parameters, row=AuditRow)
