"""Groups of people with their allowance. The group `prebuilds` is the system's: only its allowance is the owners'."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final
from uuid import UUID, uuid4

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.paging import Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import GroupId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import actor_of, check_access, organization_for
from prebuilds.reconciler.naming import meant_by, one_named, refuse_system
from prebuilds.reconciler.queries.groups import (
    add_to_group,
    delete_group,
    find_groups,
    insert_group,
    lock_group,
    take_out_of_group,
    update_group,
)
from prebuilds.reconciler.queries.users import NamedUser, find_named_users
from prebuilds.reconciler.queries.views import SYSTEM_GROUP, GroupRow
from prebuilds.store.audit import AuditEntry, changes, record_deed
from prebuilds.store.database import Database
from prebuilds.store.outbox.writer import append
from prebuilds.store.requests import RequestKey, admit_or_answer, fingerprint
from prebuilds.store.transactions import Transaction

CREATE_GROUP: Final = "AdminService.CreateGroup"


@dataclass(frozen=True, slots=True)
class GroupOrder:
    """A group that somebody wants."""

    organization: str
    name: str
    quota_allowance: int | None
    """What each person in it may use a day; None: unlimited."""
    request_id: str


@dataclass(frozen=True, slots=True)
class GroupFilter:
    """Which groups of an organisation; what is None does not matter."""

    name: str | None = None
    user: str | None = None
    """Name or id of somebody in it."""


class Groups:
    """What people do with groups."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def create(self, caller: Caller, order: GroupOrder) -> GroupRow:
        """Make a group without members. Refuses NAME_TAKEN, also for the system's group, and REQUEST_ID_REUSED."""

        async def work(tx: Transaction) -> GroupRow:
            organization = await organization_for(tx, caller, order.organization, Resource.GROUP, Action.CREATE)
            _refuse_system_name(order.name)
            group_id = GroupId(uuid4())
            request = RequestKey(organization.id, caller.key, CREATE_GROUP, order.request_id)
            values = {"name": order.name, "quota_allowance": order.quota_allowance}
            content = fingerprint(values)
            first = await admit_or_answer(tx, request, content, {"group_id": str(group_id)})
            if first is not None:
                return await group_for(tx, caller, UUID(first["group_id"]), Action.CREATE)
            await insert_group(tx, group_id, organization.id, order.name, order.quota_allowance)
            group = await group_for(tx, caller, group_id, Action.CREATE)
            await _record(tx, caller, "create", group, {"quota_allowance": order.quota_allowance})
            return group

        return await self._database.run("create group", work)

    async def get(self, caller: Caller, group_id: UUID) -> GroupRow:
        """Give one group; raises Refusal NOT_FOUND."""
        async with self._database.read("get group") as tx:
            return await group_for(tx, caller, group_id, Action.READ)

    async def list(
        self, caller: Caller, organization: str, wanted: GroupFilter, page: PageWish[tuple[str]]
    ) -> Page[GroupRow]:
        """Give a page of an organisation's groups, by name; raises Refusal NOT_FOUND, PAGE_TOKEN_INVALID."""
        after = page.after()
        async with self._database.read("list groups") as tx:
            scope = await organization_for(tx, caller, organization, Resource.GROUP, Action.READ)
            found = await find_groups(
                tx,
                organization_id=scope.id,
                name=wanted.name,
                user=wanted.user,
                after=after[0] if after else None,
                limit=page.limit,
            )
        return page.cut(found, lambda group: (group.name,))

    async def update(self, caller: Caller, group_id: UUID, values: Mapping[str, str | int | None]) -> GroupRow:
        """Change a group's `name` or `quota_allowance`, those that are given. Refuses NAME_TAKEN, SYSTEM_OWNED.

        Another allowance of the system's group wakes the reconciler: it may admit prebuilds that waited for it.
        """

        async def work(tx: Transaction) -> GroupRow:
            group = await _locked(tx, caller, group_id, Action.UPDATE)
            changed = changes({"name": group.name, "quota_allowance": group.quota_allowance}, values)
            if not changed:
                return group
            if "name" in changed:
                _refuse_system(group)
                _refuse_system_name(values["name"])
            await update_group(tx, group.id, values)
            after = await group_for(tx, caller, group_id, Action.UPDATE)
            await _record(tx, caller, "update", after, changed)
            if group.is_system:
                organization_id = group.organization_id
                await append(tx, EventKind.SETTINGS_CHANGED, organization_id, organization_id=organization_id)
            return after

        return await self._database.run("update group", work)

    async def delete(self, caller: Caller, group_id: UUID) -> None:
        """Delete a group. Refuses SYSTEM_OWNED."""

        async def work(tx: Transaction) -> None:
            group = await _locked(tx, caller, group_id, Action.DELETE)
            _refuse_system(group)
            await delete_group(tx, group.id)
            await _record(tx, caller, "delete", group, {"quota_allowance": group.quota_allowance})

        await self._database.run("delete group", work)

    async def add_members(self, caller: Caller, group_id: UUID, users: Sequence[str]) -> GroupRow:
        """Put members of the organisation into a group; who is in it stays. Refuses SYSTEM_OWNED, NOT_FOUND."""

        async def work(tx: Transaction) -> GroupRow:
            group = await _locked(tx, caller, group_id, Action.UPDATE)
            _refuse_system(group)
            found = await find_named_users(tx, users, group.organization_id)
            meant = [
                one_named(named, found, kind="member", field=f"users[{index}]") for index, named in enumerate(users)
            ]
            for user in meant:
                refuse_system(user)
            added = await add_to_group(tx, group, [user.id for user in meant])
            return await _changed_members(tx, caller, group, "added", {user for user in meant if user.id in added})

        return await self._database.run("add group members", work)

    async def remove_members(self, caller: Caller, group_id: UUID, users: Sequence[str]) -> GroupRow:
        """Take people out of a group; who is not in it, or nobody at all, is ignored. Refuses SYSTEM_OWNED."""

        async def work(tx: Transaction) -> GroupRow:
            group = await _locked(tx, caller, group_id, Action.UPDATE)
            _refuse_system(group)
            found = await find_named_users(tx, users, group.organization_id)
            meant = [
                one_named(named, found, field=f"users[{index}]")
                for index, named in enumerate(users)
                if meant_by(named, found)
            ]
            removed = await take_out_of_group(tx, group, [user.id for user in meant])
            return await _changed_members(tx, caller, group, "removed", {user for user in meant if user.id in removed})

        return await self._database.run("remove group members", work)


async def group_for(tx: Transaction, caller: Caller, group_id: UUID, action: Action) -> GroupRow:
    """The group of that id."""
    found = await find_groups(tx, id_=group_id)
    if not found:
        raise Refusal.not_found("group", str(group_id))
    await check_access(tx, caller, found[0].organization_id, Resource.GROUP, action, kind="group", id_=group_id)
    return found[0]


async def _locked(tx: Transaction, caller: Caller, group_id: UUID, action: Action) -> GroupRow:
    """The group of that id as it is once it is locked."""
    group = await group_for(tx, caller, group_id, action)
    await lock_group(tx, group.id)
    return await group_for(tx, caller, group_id, action)


async def _changed_members(
    tx: Transaction, caller: Caller, group: GroupRow, verb: str, users: Collection[NamedUser]
) -> GroupRow:
    if users:
        people = [{"id": str(user.id), "name": user.name} for user in sorted(users, key=attrgetter("name", "id"))]
        await _record(tx, caller, "update", group, {verb: people})
    return (await find_groups(tx, id_=group.id))[0]


async def _record(tx: Transaction, caller: Caller, verb: str, group: GroupRow, details: Mapping[str, object]) -> None:
    entry = AuditEntry(actor_of(caller), verb, "group", group.id, group.name, group.organization_id, details)
    await record_deed(tx, entry)


def _refuse_system(group: GroupRow) -> None:
    if group.is_system:
        raise Refusal(Reason.SYSTEM_OWNED, f"the name and the members of group {group.name!r} are the system's")


def _refuse_system_name(name: object) -> None:
    if name == SYSTEM_GROUP:
        raise Refusal(Reason.NAME_TAKEN, f"the group {name!r} is the system's, which makes it when there are prebuilds")
