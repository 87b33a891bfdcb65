"""Reading who changed what."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.paging import Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.refusals import Refusal, Violation
from prebuilds.reconciler.access import is_operator, organization_for
from prebuilds.reconciler.queries.audit import find_audit_events
from prebuilds.reconciler.queries.filters import AuditFilter
from prebuilds.reconciler.queries.views import AuditRow
from prebuilds.store.database import Database


class ActorKind(StrEnum):
    """What can do something, as the audit log spells it."""

    PERSON = "person"
    SERVICE = "service"
    DAEMON = "daemon"
    AGENT = "agent"


class Auditing:
    """What people ask of the audit log."""

    def __init__(self, database: Database) -> None:
        """Read from this database."""
        self._database = database

    async def list(
        self, caller: Caller, organization: str, wanted: AuditFilter, page: PageWish[tuple[datetime, int]]
    ) -> Page[AuditRow]:
        """Give a page of an organisation's events, or where none is named of all, newest first.

        Raises Refusal NOT_FOUND, INVALID_FIELDS, PAGE_TOKEN_INVALID.
        """
        before = page.after()
        if not organization and not is_operator(caller):
            raise Refusal.invalid(Violation("organization", "is required"))
        async with self._database.read("list audit events") as tx:
            organization_id = None
            if organization:
                scope = await organization_for(tx, caller, organization, Resource.AUDIT_EVENT, Action.READ)
                organization_id = scope.id
            found = await find_audit_events(tx, organization_id, wanted, before=before, limit=page.limit)
        return page.cut(found, lambda event: (event.created_at, event.id))
