"""Reading the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prebuilds.domain.ids import OrganizationId
from prebuilds.reconciler.queries.filters import AuditFilter
from prebuilds.reconciler.queries.views import AuditRow
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


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
