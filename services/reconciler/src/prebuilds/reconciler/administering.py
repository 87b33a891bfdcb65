"""Organisations and their members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, UserId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason, Refusal, Violation
from prebuilds.reconciler.access import actor_of, organization_for
from prebuilds.reconciler.queries.people import (
    find_members,
    find_organizations,
    find_users,
    insert_member,
    insert_organization,
)
from prebuilds.reconciler.queries.views import MemberRow, OrganizationRow
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.requests import RequestKey, admit, fingerprint, first_answer
from prebuilds.store.transactions import Transaction

CREATE_ORGANIZATION: Final = "AdminService.CreateOrganization"
CREATE_MEMBER: Final = "AdminService.CreateMember"


@dataclass(frozen=True, slots=True)
class OrganizationOrder:
    """An organisation that somebody wants."""

    name: str
    display_name: str
    request_id: str


@dataclass(frozen=True, slots=True)
class MemberOrder:
    """A member that somebody wants."""

    organization: str
    user: str
    roles: Sequence[Role]
    request_id: str


def id_of_request(caller: Caller, method: str, scope: str, request_id: str) -> UUID:
    """The id of what a request makes, where no organisation keeps the request: the same for each repetition."""
    if not request_id:
        return uuid4()
    return uuid5(NAMESPACE_URL, f"{caller.key}\n{method}\n{scope}\n{request_id}")


class Administering:
    """Makes organisations and members."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def create_organization(self, caller: Caller, order: OrganizationOrder) -> OrganizationRow:
        """Make an organisation whose owner is its maker. Refuses NAME_TAKEN, REQUEST_ID_REUSED.

        The id follows from the request's, so that a repetition meets the organisation and, in it, the kept request.
        """

        async def work(tx: Transaction) -> OrganizationRow:
            organization_id = OrganizationId(id_of_request(caller, CREATE_ORGANIZATION, "", order.request_id))
            made = await insert_organization(tx, organization_id, order.name, order.display_name)
            request = RequestKey(organization_id, caller.key, CREATE_ORGANIZATION, order.request_id)
            content = fingerprint({"name": order.name, "display_name": order.display_name})
            if not made:
                if await first_answer(tx, request, content) is None:
                    raise Refusal(Reason.REQUEST_ID_REUSED, "this request id made another organisation long ago")
            else:
                await admit(tx, request, content, {})
                await insert_member(tx, organization_id, caller.person().user_id, [Role.OWNER])
                entry = AuditEntry(
                    actor_of(caller),
                    "organization.create",
                    "organization",
                    organization_id,
                    order.name,
                    organization_id,
                )
                await record_deed(tx, entry)
            found = await find_organizations(tx, named=str(organization_id))
            if not found:
                raise Refusal.not_found("organization", order.name)
            return found[0]

        return await self._database.run("create organisation", work)

    async def create_member(self, caller: Caller, order: MemberOrder) -> MemberRow:
        """Make a user a member. Refuses ALREADY_EXISTS, REQUEST_ID_REUSED, NOT_FOUND for an unknown user."""

        async def work(tx: Transaction) -> MemberRow:
            organization = await organization_for(tx, caller, order.organization, Resource.MEMBER, Action.CREATE)
            request = RequestKey(organization.id, caller.key, CREATE_MEMBER, order.request_id)
            content = fingerprint({"user": order.user, "roles": sorted(order.roles)})
            user_id = await _user_named(tx, order.user)
            if not await admit(tx, request, content, {}):
                await first_answer(tx, request, content)
                return await _member(tx, organization.id, user_id)
            if not await insert_member(tx, organization.id, user_id, order.roles):
                raise Refusal(Reason.ALREADY_EXISTS, f"{order.user!r} is a member already")
            member = await _member(tx, organization.id, user_id)
            details = {"roles": ", ".join(order.roles)}
            await record_deed(
                tx,
                AuditEntry(
                    actor_of(caller), "member.create", "member", user_id, member.user_name, organization.id, details
                ),
            )
            return member

        return await self._database.run("create member", work)


async def _user_named(tx: Transaction, named: str) -> UserId:
    found = await find_users(tx, named)
    if not found:
        raise Refusal.not_found("user", named)
    if len(found) > 1:
        raise Refusal.invalid(Violation("user", "is the name of several people; give the id"))
    return found[0]


async def _member(tx: Transaction, organization_id: OrganizationId, user_id: UserId) -> MemberRow:
    found = await find_members(tx, organization_id, user_id=user_id, with_system=True)
    if not found:
        raise Refusal.not_found("member", str(user_id))
    return found[0]
