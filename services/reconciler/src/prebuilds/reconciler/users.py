"""Users: making them known, reading, renaming and deleting them. System users are the system's own matter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.paging import Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, UserId
from prebuilds.domain.refusals import Reason, Refusal, Violation
from prebuilds.reconciler.access import actor_of, is_operator, organization_for
from prebuilds.reconciler.queries.people import (
    end_membership,
    find_members,
    lock_organization,
    organizations_of,
    owned_alone,
)
from prebuilds.reconciler.queries.users import find_users, insert_user, mark_deleted, rename_user
from prebuilds.reconciler.queries.views import MemberRow, UserRow
from prebuilds.reconciler.recording import record_membership
from prebuilds.reconciler.request_ids import id_of_request
from prebuilds.store.audit import AuditEntry, changes, record_deed
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction

CREATE_USER: Final = "AdminService.CreateUser"

ME: Final = "me"
"""The caller, where the id of a user is asked for."""


@dataclass(frozen=True, slots=True)
class UserOrder:
    """A user that somebody wants to be known."""

    name: str
    issuer: str
    subject: str
    request_id: str


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users; what is None does not matter."""

    name: str | None = None
    issuer: str | None = None
    subject: str | None = None
    show_system: bool = False
    show_deleted: bool = False


class Users:
    """What people do with users."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def create(self, caller: Caller, order: UserOrder) -> UserRow:
        """Make a user known. Refuses ALREADY_EXISTS, REQUEST_ID_REUSED.

        Users belong to no organisation that could keep the request: the id follows from the request's.
        """

        async def work(tx: Transaction) -> UserRow:
            user_id = UserId(id_of_request(caller, CREATE_USER, order.request_id))
            made = await insert_user(tx, user_id, name=order.name, issuer=order.issuer, subject=order.subject)
            user = await _user(tx, user_id)
            if not made and (user.name, user.issuer, user.subject) != (order.name, order.issuer, order.subject):
                raise Refusal(Reason.REQUEST_ID_REUSED, f"request id {order.request_id!r} was used for another request")
            if made:
                await _record(tx, caller, "create", user, {"issuer": user.issuer, "subject": user.subject})
            return user

        return await self._database.run("create user", work)

    async def get(self, caller: Caller, user_id: UUID | None) -> tuple[UserRow, Sequence[MemberRow]]:
        """Give a user, or the caller, with the memberships that the caller may see; raises Refusal NOT_FOUND."""
        me = caller.person().user_id
        async with self._database.read("get user", snapshot=True) as tx:
            user = await _visible(tx, caller, me if user_id is None else user_id)
            visible = None if user.id == me else _organizations_seen_by(caller)
            return user, await find_members(tx, visible, user_id=user.id, with_system=True, limit=None)

    async def list(
        self, caller: Caller, organization: str, wanted: UserFilter, page: PageWish[tuple[str, UUID]]
    ) -> Page[UserRow]:
        """Give a page of an organisation's users, or where none is named of all, by name.

        Raises Refusal NOT_FOUND, INVALID_FIELDS, PAGE_TOKEN_INVALID.
        """
        after = page.after()
        async with self._database.read("list users", snapshot=True) as tx:
            found = await find_users(
                tx,
                organization_ids=await _scope(tx, caller, organization),
                name=wanted.name,
                issuer=wanted.issuer,
                subject=wanted.subject,
                with_system=wanted.show_system,
                with_deleted=wanted.show_deleted,
                after=after,
                limit=page.limit,
            )
        return page.cut(found, lambda user: (user.name, user.id))

    async def rename(self, caller: Caller, user_id: UUID, name: str) -> UserRow:
        """Change a user's name. Refuses SYSTEM_OWNED, PERMISSION_DENIED, NOT_FOUND."""

        async def work(tx: Transaction) -> UserRow:
            user = await _visible(tx, caller, user_id)
            if user.id != caller.person().user_id and not is_operator(caller):
                raise Refusal(Reason.PERMISSION_DENIED, "may not update user")
            _refuse_system(user)
            changed = changes({"name": user.name}, {"name": name})
            if changed:
                await rename_user(tx, user.id, name)
                await _record(tx, caller, "update", user, changed)
            return await _user(tx, user.id)

        return await self._database.run("update user", work)

    async def delete(self, caller: Caller, user_id: UUID) -> UserRow:
        """Delete a user and end its memberships; who is deleted stays as it is. Refuses LAST_OWNER, SYSTEM_OWNED.

        Organisations are locked by id, then the user: who is marked is made a member nowhere any more.
        """

        async def work(tx: Transaction) -> UserRow:
            user = await _user(tx, user_id)
            _refuse_system(user)
            organization_ids = await organizations_of(tx, user.id)
            for organization_id in organization_ids:
                await lock_organization(tx, organization_id)
            if not await mark_deleted(tx, user.id):
                return user
            if not set(await organizations_of(tx, user.id)) <= set(organization_ids):
                raise Refusal(Reason.TRANSACTION_CONFLICT, f"{user.name!r} was made a member at this moment")
            alone = await owned_alone(tx, user.id)
            if alone:
                organizations = ", ".join(map(str, alone))
                raise Refusal(
                    Reason.LAST_OWNER,
                    f"{user.name!r} is the only owner of organisations",
                    metadata={"organizations": organizations},
                )
            for member in await find_members(tx, None, user_id=user.id, limit=None):
                await record_membership(tx, caller, "delete", member, {"roles": sorted(member.roles)})
            for organization_id in organization_ids:
                await end_membership(tx, organization_id, user.id)
            await _record(tx, caller, "delete", user, {"issuer": user.issuer, "subject": user.subject})
            return await _user(tx, user.id)

        return await self._database.run("delete user", work)


async def _user(tx: Transaction, user_id: UUID) -> UserRow:
    found = await find_users(tx, id_=user_id, with_system=True, with_deleted=True)
    if not found:
        raise Refusal.not_found("user", str(user_id))
    return found[0]


async def _visible(tx: Transaction, caller: Caller, user_id: UUID) -> UserRow:
    """The user of that id, where it is the caller, or the two have an organisation in common, or for operators."""
    is_self = user_id == caller.person().user_id
    organization_ids = None if is_self else _organizations_seen_by(caller)
    found = await find_users(tx, id_=user_id, organization_ids=organization_ids, with_system=True, with_deleted=True)
    if not found:
        raise Refusal.not_found("user", str(user_id))
    return found[0]


def _organizations_seen_by(caller: Caller) -> Collection[OrganizationId] | None:
    """The organisations whose users the caller may see; None: all."""
    scope = caller.organizations_for(Resource.USER, Action.READ)
    return None if scope.everywhere else scope.full


async def _scope(tx: Transaction, caller: Caller, named: str) -> Collection[OrganizationId] | None:
    if named:
        return [(await organization_for(tx, caller, named, Resource.USER, Action.READ)).id]
    if is_operator(caller):
        return None
    raise Refusal.invalid(Violation("organization", "is required"))


async def _record(tx: Transaction, caller: Caller, verb: str, user: UserRow, details: dict[str, object]) -> None:
    entry = AuditEntry(actor_of(caller), verb, "user", user.id, user.name, None, details)
    await record_deed(tx, entry)


def _refuse_system(user: UserRow) -> None:
    if user.is_system:
        raise Refusal(Reason.SYSTEM_OWNED, f"user {user.name!r} is the system's own")
