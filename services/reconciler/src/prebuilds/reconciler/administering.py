"""Organisations: making, reading, changing and deleting them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.paging import Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import actor_of, organization_for
from prebuilds.reconciler.queries.people import (
    delete_organization,
    find_organizations,
    has_workspaces,
    insert_member,
    insert_organization,
    lock_organization,
    lock_out,
    update_organization,
)
from prebuilds.reconciler.queries.templates import lock_templates_of
from prebuilds.reconciler.queries.versions import lock_pools
from prebuilds.reconciler.queries.views import OrganizationRow
from prebuilds.reconciler.request_ids import id_of_request
from prebuilds.store.audit import AuditEntry, changes, record_deed
from prebuilds.store.database import Database
from prebuilds.store.outbox.writer import Event, append_many
from prebuilds.store.requests import RequestKey, admit, fingerprint, first_answer
from prebuilds.store.transactions import Transaction

CREATE_ORGANIZATION: Final = "AdminService.CreateOrganization"


@dataclass(frozen=True, slots=True)
class OrganizationOrder:
    """An organisation that somebody wants."""

    name: str
    display_name: str
    request_id: str


class Administering:
    """What people do with organisations."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def create(self, caller: Caller, order: OrganizationOrder) -> OrganizationRow:
        """Make an organisation whose owner is its maker. Refuses NAME_TAKEN, REQUEST_ID_REUSED.

        The id follows from the request's, so that a repetition meets the organisation and, in it, the kept request.
        """

        async def work(tx: Transaction) -> OrganizationRow:
            organization_id = OrganizationId(id_of_request(caller, CREATE_ORGANIZATION, order.request_id))
            made = await insert_organization(tx, organization_id, order.name, order.display_name)
            request = RequestKey(organization_id, caller.key, CREATE_ORGANIZATION, order.request_id)
            content = fingerprint({"name": order.name, "display_name": order.display_name})
            if not made:
                if await first_answer(tx, request, content) is None:
                    raise Refusal(Reason.REQUEST_ID_REUSED, "this request id made another organisation long ago")
            else:
                await admit(tx, request, content, {})
                await insert_member(tx, organization_id, caller.person().user_id, [Role.OWNER])
            found = await find_organizations(tx, named=str(organization_id))
            if not found:
                raise Refusal.not_found("organization", order.name)
            if made:
                await _record(tx, caller, "create", found[0])
            return found[0]

        return await self._database.run("create organisation", work)

    async def get(self, caller: Caller, named: str) -> OrganizationRow:
        """Give the organisation of that id or name; raises Refusal NOT_FOUND."""
        async with self._database.read("get organisation") as tx:
            return await organization_for(tx, caller, named, Resource.ORGANIZATION, Action.READ)

    async def list(self, caller: Caller, name: str | None, page: PageWish[tuple[str]]) -> Page[OrganizationRow]:
        """Give a page of the caller's organisations, by name; raises Refusal PAGE_TOKEN_INVALID."""
        after, person = page.after(), caller.person()
        async with self._database.read("list organisations") as tx:
            found = await find_organizations(
                tx,
                named=name,
                visible=None if person.is_operator else person.roles,
                after=after[0] if after else None,
                limit=page.limit,
            )
        return page.cut(found, lambda organization: (organization.name,))

    async def update(self, caller: Caller, organization_id: UUID, values: Mapping[str, str]) -> OrganizationRow:
        """Change an organisation's `name` or `display_name`, those that are given. Refuses NAME_TAKEN."""

        async def work(tx: Transaction) -> OrganizationRow:
            named = str(organization_id)
            found = await organization_for(tx, caller, named, Resource.ORGANIZATION, Action.UPDATE)
            await lock_organization(tx, found.id)
            before = await organization_for(tx, caller, named, Resource.ORGANIZATION, Action.UPDATE)
            changed = changes({"name": before.name, "display_name": before.display_name}, values)
            if not changed:
                return before
            await update_organization(tx, before.id, values)
            after = await organization_for(tx, caller, named, Resource.ORGANIZATION, Action.UPDATE)
            await _record(tx, caller, "update", after, changed)
            return after

        return await self._database.run("update organisation", work)

    async def delete(self, caller: Caller, organization_id: UUID) -> None:
        """Delete an organisation, with its templates and keys. Refuses ORGANIZATION_IN_USE.

        A workspace that is being made at this moment is waited for, and then counts. Locks the organisation, which
        whoever makes something in it has locked first, then its templates, then the pools of their active versions: a
        pass that works on one of them has committed by then, and the next one finds its template deleted.
        """

        async def work(tx: Transaction) -> None:
            organization = await organization_for(
                tx, caller, str(organization_id), Resource.ORGANIZATION, Action.DELETE
            )
            await lock_out(tx, organization.id)
            await lock_pools(tx, await lock_templates_of(tx, organization.id))
            # A later statement than the locks': it sees what whoever held them before has committed.
            if await has_workspaces(tx, organization.id):
                raise Refusal(Reason.ORGANIZATION_IN_USE, f"organisation {organization.name!r} still has workspaces")
            templates = await delete_organization(tx, organization.id)
            await _record(tx, caller, "delete", organization)
            events = [Event(EventKind.TEMPLATE_CHANGED, template_id, organization.id) for template_id in templates]
            await append_many(tx, events)

        await self._database.run("delete organisation", work)


async def _record(
    tx: Transaction, caller: Caller, verb: str, row: OrganizationRow, details: Mapping[str, object] | None = None
) -> None:
    entry = AuditEntry(actor_of(caller), verb, "organization", row.id, row.name, row.id, details or {})
    await record_deed(tx, entry)
