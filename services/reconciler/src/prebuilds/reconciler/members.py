"""Members of organisations. An organisation that has an owner keeps one, however many go at the same moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.paging import Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, UserId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import organization_for
from prebuilds.reconciler.naming import one_named, refuse_system, system_owned
from prebuilds.reconciler.queries.people import (
    end_membership,
    find_members,
    insert_member,
    lock_organization,
    owned_alone,
    set_roles,
)
from prebuilds.reconciler.queries.users import find_named_users
from prebuilds.reconciler.queries.views import MemberRow
from prebuilds.reconciler.recording import record_membership
from prebuilds.store.audit import changes
from prebuilds.store.database import Database
from prebuilds.store.requests import RequestKey, admit_or_answer, fingerprint
from prebuilds.store.transactions import Transaction

CREATE_MEMBER: Final = "AdminService.CreateMember"


@dataclass(frozen=True, slots=True)
class MemberOrder:
    """A member that somebody wants."""

    organization: str
    user: str
    roles: Sequence[Role]
    request_id: str


@dataclass(frozen=True, slots=True)
class MemberFilter:
    """Which members of an organisation; what is None does not matter."""

    name: str | None = None
    role: Role | None = None
    group: str | None = None
    show_system: bool = False


class Members:
    """What people do with members."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def create(self, caller: Caller, order: MemberOrder) -> MemberRow:
        """Make a user a member. Refuses ALREADY_EXISTS, REQUEST_ID_REUSED, SYSTEM_OWNED, NOT_FOUND."""

        async def work(tx: Transaction) -> MemberRow:
            organization = await organization_for(tx, caller, order.organization, Resource.MEMBER, Action.CREATE)
            user = one_named(order.user, await find_named_users(tx, [order.user]))
            refuse_system(user)
            request = RequestKey(organization.id, caller.key, CREATE_MEMBER, order.request_id)
            content = fingerprint({"user": order.user, "roles": sorted(order.roles)})
            first = await admit_or_answer(tx, request, content, {"user_id": str(user.id)})
            if first is not None:
                return await member_of(tx, organization.id, UserId(UUID(first["user_id"])))
            made = await insert_member(tx, organization.id, user.id, order.roles)
            member = await member_of(tx, organization.id, user.id)
            if not made:
                raise Refusal(Reason.ALREADY_EXISTS, f"{order.user!r} is a member already")
            await record_membership(tx, caller, "create", member, {"roles": list(order.roles)})
            return member

        return await self._database.run("create member", work)

    async def get(self, caller: Caller, organization: str, user: str) -> MemberRow:
        """Give one member, as stored; raises Refusal NOT_FOUND."""
        async with self._database.read("get member", snapshot=True) as tx:
            scope = await organization_for(tx, caller, organization, Resource.ORGANIZATION, Action.READ)
            found = one_named(user, await find_named_users(tx, [user], scope.id), kind="member")
            caller.require(scope.id, Resource.MEMBER, Action.READ, owner_id=found.id)
            return await member_of(tx, scope.id, found.id)

    async def list(
        self, caller: Caller, organization: str, wanted: MemberFilter, page: PageWish[tuple[str, UUID]]
    ) -> Page[MemberRow]:
        """Give a page of an organisation's members, by name; raises Refusal NOT_FOUND, PAGE_TOKEN_INVALID."""
        after = page.after()
        async with self._database.read("list members", snapshot=True) as tx:
            scope = await organization_for(tx, caller, organization, Resource.ORGANIZATION, Action.READ)
            found = await find_members(
                tx,
                [scope.id],
                name=wanted.name,
                role=wanted.role,
                group=wanted.group,
                with_system=wanted.show_system,
                after=after,
                limit=page.limit,
            )
        return page.cut(found, lambda member: (member.user_name, member.user_id))

    async def update(self, caller: Caller, organization_id: UUID, user_id: UUID, roles: Sequence[Role]) -> MemberRow:
        """Replace a member's roles. Refuses LAST_OWNER, SYSTEM_OWNED, NOT_FOUND."""

        async def work(tx: Transaction) -> MemberRow:
            organization = await organization_for(tx, caller, str(organization_id), Resource.MEMBER, Action.UPDATE)
            await lock_organization(tx, organization.id)
            member = await member_of(tx, organization.id, UserId(user_id))
            _refuse_system_member(member)
            if Role.OWNER not in roles:
                await _refuse_last_owner(tx, member)
            changed = changes({"roles": sorted(member.roles)}, {"roles": sorted(roles)})
            if changed:
                await set_roles(tx, organization.id, member.user_id, roles)
                await record_membership(tx, caller, "update", member, changed)
            return await member_of(tx, organization.id, member.user_id)

        return await self._database.run("update member", work)

    async def delete(self, caller: Caller, organization: str, user: str) -> None:
        """End a membership, also in the organisation's groups. Refuses LAST_OWNER, SYSTEM_OWNED, NOT_FOUND."""

        async def work(tx: Transaction) -> None:
            scope = await organization_for(tx, caller, organization, Resource.MEMBER, Action.DELETE)
            await lock_organization(tx, scope.id)
            found = one_named(user, await find_named_users(tx, [user], scope.id), kind="member")
            refuse_system(found)
            member = await member_of(tx, scope.id, found.id)
            await _refuse_last_owner(tx, member)
            await end_membership(tx, scope.id, found.id)
            await record_membership(tx, caller, "delete", member, {"roles": sorted(member.roles)})

        await self._database.run("delete member", work)


async def member_of(tx: Transaction, organization_id: OrganizationId, user_id: UserId) -> MemberRow:
    """The user's part in an organisation; raises Refusal NOT_FOUND."""
    found = await find_members(tx, [organization_id], user_id=user_id, with_system=True)
    if not found:
        raise Refusal.not_found("member", str(user_id))
    return found[0]


async def _refuse_last_owner(tx: Transaction, member: MemberRow) -> None:
    """Refuse LAST_OWNER for a member who stops being an owner; the organisation is locked."""
    if await owned_alone(tx, member.user_id, member.organization_id):
        raise Refusal(Reason.LAST_OWNER, f"{member.user_name!r} is the organisation's only owner")


def _refuse_system_member(member: MemberRow) -> None:
    if member.is_system:
        raise system_owned(member.user_name)
