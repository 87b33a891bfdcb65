"""Groups of people, with what each of them may use: reading and writing them, which the reconciler does alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import delete, insert, select, update

from prebuilds.domain.ids import SYSTEM_USER_ID, GroupId, OrganizationId, UserId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.queries.views import SYSTEM_GROUP, GroupRow
from prebuilds.store.faults import constraint_of
from prebuilds.store.schema import Group, GroupMember
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_NAME_TAKEN: Final = "uq_groups_organization_id_name"

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


@dataclass(frozen=True, slots=True)
class Joined:
    """What the system user had to be given: memberships, groups, and places in them."""

    memberships: int
    groups: int
    places: int = 0

    def __bool__(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.memberships or self.groups or self.places)


async def find_groups(
    tx: Transaction,
    *,
    id_: UUID | None = None,
    organization_id: OrganizationId | None = None,
    name: str | None = None,
    user: str | None = None,
    after: str | None = None,
    limit: int = 1,
) -> Sequence[GroupRow]:
    """Find groups by name; `user` is the name or id of somebody in it."""
    parameters = {
        "id": id_,
        "organization_id": organization_id,
        "name": name,
        "user": user,
        "after": after,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_groups"], parameters, row=GroupRow)


async def insert_group(
    tx: Transaction, id_: GroupId, organization_id: OrganizationId, name: str, quota_allowance: int | None
) -> None:
    """Insert a group. Refuses NAME_TAKEN."""
    values = {"id": id_, "organization_id": organization_id, "name": name, "quota_allowance": quota_allowance}
    try:
        await tx.execute(insert(Group).values(**values))
    except UniqueViolation as violation:
        if constraint_of(violation) != _NAME_TAKEN:
            raise
        raise _name_taken(name) from violation


async def lock_group(tx: Transaction, id_: GroupId) -> None:
    """Lock a group, also against people being put into it."""
    await tx.execute(select(Group.id).where(Group.id == id_).with_for_update())


async def update_group(tx: Transaction, id_: GroupId, values: Mapping[str, object]) -> None:
    """Set these columns of a group. Refuses NAME_TAKEN."""
    try:
        await tx.execute(update(Group).where(Group.id == id_).values(**values))
    except UniqueViolation as violation:
        if constraint_of(violation) != _NAME_TAKEN:
            raise
        raise _name_taken(values.get("name")) from violation


async def delete_group(tx: Transaction, id_: GroupId) -> None:
    """Delete a locked group and who is in it; nothing else refers to groups."""
    await tx.execute(delete(GroupMember).where(GroupMember.group_id == id_))
    await tx.execute(delete(Group).where(Group.id == id_))


async def add_to_group(tx: Transaction, group: GroupRow, user_ids: Collection[UserId]) -> frozenset[UserId]:
    """Put these members of its organisation into a group; gives those who were not in it. Locks their memberships."""
    parameters = {"group_id": group.id, "organization_id": group.organization_id, "user_ids": list(user_ids)}
    return frozenset(map(UserId, await tx.fetch_all(_queries["add_to_group"], parameters, row=UUID)))


async def take_out_of_group(tx: Transaction, group: GroupRow, user_ids: Collection[UserId]) -> frozenset[UserId]:
    """Take these people out of a group; gives those who were in it."""
    member = GroupMember
    statement = delete(member).where(member.group_id == group.id, member.user_id.in_(user_ids))
    return frozenset(map(UserId, (await tx.execute(statement.returning(member.user_id))).scalars()))


async def join_system_user(tx: Transaction) -> Joined:
    """Give the system user its part in each organisation with a preset that takes part in prebuilds.

    What is there stays as it is, the group's allowance too. Two statements: a group that another replica made at this
    moment is invisible to the first. Rows are made in the order of their organisations, so that replicas only wait.
    """
    parameters = {"user_id": SYSTEM_USER_ID, "group_name": SYSTEM_GROUP}
    joined = await tx.fetch_one(_queries["join_organizations"], parameters, row=Joined)
    assert joined is not None, "counts are always one row"  # noqa: S101 - a mistake of this program
    placed = await tx.run(_queries["join_system_groups"], parameters)
    return Joined(joined.memberships, joined.groups, placed.rowcount)


def _name_taken(name: object) -> Refusal:
    return Refusal(Reason.NAME_TAKEN, f"there is a group named {name!r}")
