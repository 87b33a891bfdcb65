"""Reading the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select, tuple_

from prebuilds.domain.ids import OrganizationId
from prebuilds.reconciler.queries.filters import AuditFilter
from prebuilds.reconciler.queries.views import AuditRow
from prebuilds.store.schema import AuditEvent
from prebuilds.store.transactions import Transaction


async def find_audit_events(
    tx: Transaction,
    organization_id: OrganizationId | None,
    wanted: AuditFilter,
    *,
    before: tuple[datetime, int] | None,
    limit: int,
) -> Sequence[AuditRow]:
    """Find events, newest first, of an organisation or of all; `before` is time and id of the last one before."""
    found = await tx.execute(audit_events(organization_id, wanted, before=before, limit=limit))
    return [AuditRow(*row) for row in found]


def audit_events(
    organization_id: OrganizationId | None, wanted: AuditFilter, *, before: tuple[datetime, int] | None, limit: int
) -> Select[*tuple[Any, ...]]:
    """The statement that finds them.

    It has only the conditions that are asked for, so that an index serves them. Times are in its order and
    in each index: a page of a short time reads nothing that is newer or older.
    """
    event = AuditEvent
    kind, actor_id = (func.split_part(event.principal, ":", part) for part in (1, 2))
    statement = select(
        event.id,
        event.organization_id,
        event.created_at,
        event.principal,
        event.principal_name,
        event.action,
        event.resource,
        event.resource_id,
        event.resource_name,
        event.details,
    )
    if organization_id is not None:
        statement = statement.where(event.organization_id == organization_id)
    if wanted.start is not None:
        statement = statement.where(event.created_at >= wanted.start)
    if wanted.end is not None:
        statement = statement.where(event.created_at < wanted.end)
    if wanted.actor is not None:
        statement = statement.where(or_(event.principal_name == wanted.actor, actor_id == wanted.actor.lower()))
    if wanted.actor_kind is not None:
        statement = statement.where(kind == wanted.actor_kind)
    if wanted.action is not None:
        statement = statement.where(event.action == wanted.action)
    if wanted.resource is not None:
        statement = statement.where(event.resource == wanted.resource)
    if wanted.resource_id is not None:
        statement = statement.where(event.resource_id == wanted.resource_id)
    if before is not None:
        statement = statement.where(tuple_(event.created_at, event.id) < before)
    return statement.order_by(event.created_at.desc(), event.id.desc()).limit(limit)
