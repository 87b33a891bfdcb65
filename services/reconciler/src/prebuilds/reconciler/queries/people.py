"""Organisations and their members: reading them, and writing them, which the reconciler does alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import delete, exists, select, update
from sqlalchemy.dialects.postgresql import insert

from prebuilds.domain.ids import OrganizationId, TemplateId, UserId
from prebuilds.domain.names import is_id
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.queries.views import MemberRow, OrganizationRow
from prebuilds.store.faults import constraint_of
from prebuilds.store.schema import Organization, OrganizationMember, Workspace
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_NAME_TAKEN: Final = "uq_organizations_name_live"

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


async def find_organizations(
    tx: Transaction,
    *,
    named: str | None = None,
    visible: Collection[OrganizationId] | None = None,
    after: str | None = None,
    limit: int = 1,
) -> Sequence[OrganizationRow]:
    """Find organisations by name; `named` is a name or an id, `visible` those that may be seen (None: all)."""
    is_named_by_id = named is not None and is_id(named)
    parameters = {
        "id": UUID(named) if named is not None and is_named_by_id else None,
        "name": None if is_named_by_id else named,
        "visible": None if visible is None else list(visible),
        "after": after,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_organizations"], parameters, row=OrganizationRow)


async def insert_organization(tx: Transaction, id_: OrganizationId, name: str, display_name: str) -> bool:
    """Insert an organisation; False where one of that id is there. Refuses NAME_TAKEN."""
    statement = (
        insert(Organization)
        .values(id=id_, name=name, display_name=display_name)
        .on_conflict_do_nothing(index_elements=[Organization.id])
        .returning(Organization.id)
    )
    try:
        return await tx.scalar(statement) is not None
    except UniqueViolation as violation:
        if constraint_of(violation) != _NAME_TAKEN:
            raise
        raise _name_taken(name) from violation


async def update_organization(tx: Transaction, id_: OrganizationId, values: Mapping[str, object]) -> None:
    """Set these columns of an organisation. Refuses NAME_TAKEN. Locks its row."""
    try:
        await tx.execute(update(Organization).where(Organization.id == id_).values(**values))
    except UniqueViolation as violation:
        if constraint_of(violation) != _NAME_TAKEN:
            raise
        raise _name_taken(values.get("name")) from violation


async def keep_organization(tx: Transaction, id_: OrganizationId) -> None:
    """Lock an organisation so that it stays until the transaction ends; raises Refusal NOT_FOUND where it is deleted.

    Whoever makes what must not be left behind in a deleted organisation does, before templates are locked; waits for
    the end of a deletion.
    """
    await _lock_organization(tx, id_, is_shared=True)


async def lock_out(tx: Transaction, id_: OrganizationId) -> None:
    """Lock an organisation against all who keep it; raises Refusal NOT_FOUND where it is deleted.

    No foreign key waits for this lock: who holds something in the organisation that the deletion waits for goes on.
    """
    await _lock_organization(tx, id_, is_shared=False)


async def has_workspaces(tx: Transaction, id_: OrganizationId) -> bool:
    """Whether an organisation has any workspace, prebuilds included."""
    found = exists().where(Workspace.organization_id == id_, Workspace.deleted.is_(False))
    return bool(await tx.scalar(select(found)))


async def delete_organization(tx: Transaction, id_: OrganizationId) -> Sequence[TemplateId]:
    """Mark an organisation and its templates deleted and its keys revoked; gives the templates."""
    templates = await tx.fetch_all(_queries["clear_organization"], {"organization_id": id_}, row=UUID)
    await tx.execute(update(Organization).where(Organization.id == id_).values(deleted=True))
    return [TemplateId(template_id) for template_id in templates]


async def lock_organization(tx: Transaction, id_: OrganizationId) -> None:
    """Take an organisation's advisory lock; what its members are is read in later statements."""
    await tx.run(_queries["lock_organization"], {"organization_id": id_})


async def find_members(
    tx: Transaction,
    organization_ids: Collection[OrganizationId] | None,
    *,
    user_id: UserId | None = None,
    name: str | None = None,
    role: Role | None = None,
    group: str | None = None,
    with_system: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int | None = 1,
) -> Sequence[MemberRow]:
    """Find members of these organisations, or of all, by name.

    `group` is a name or an id, `after` the last name and id of the page before.
    """
    parameters = {
        "organization_ids": None if organization_ids is None else list(organization_ids),
        "user_id": user_id,
        "name": name,
        "role": role,
        "group": group,
        "with_system": with_system,
        "after": after[0] if after else None,
        "after_id": after[1] if after else None,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_members"], parameters, row=MemberRow)


async def insert_member(
    tx: Transaction, organization_id: OrganizationId, user_id: UserId, roles: Sequence[Role]
) -> bool:
    """Insert a user's part in an organisation; False where the user is a member already, or deleted. Locks the user."""
    parameters = {"organization_id": organization_id, "user_id": user_id, "roles": [role.value for role in roles]}
    return await tx.fetch_one(_queries["insert_member"], parameters, row=UUID) is not None


async def set_roles(tx: Transaction, organization_id: OrganizationId, user_id: UserId, roles: Sequence[Role]) -> None:
    """Replace a member's roles."""
    member = OrganizationMember
    statement = update(member).where(member.organization_id == organization_id, member.user_id == user_id)
    await tx.execute(statement.values(roles=[role.value for role in roles]))


async def end_membership(tx: Transaction, organization_id: OrganizationId, user_id: UserId) -> None:
    """Delete a user's part in an organisation, then, in a later statement, what groups of it have by now."""
    member = OrganizationMember
    await tx.execute(delete(member).where(member.organization_id == organization_id, member.user_id == user_id))
    await tx.run(_queries["end_membership"], {"organization_id": organization_id, "user_id": user_id})


async def owned_alone(
    tx: Transaction, user_id: UserId, organization_id: OrganizationId | None = None
) -> Sequence[OrganizationId]:
    """Find the organisations, or whether it is this one, of which the user is the only owner."""
    parameters = {"user_id": user_id, "organization_id": organization_id}
    found = await tx.fetch_all(_queries["sole_owner"], parameters, row=UUID)
    return [OrganizationId(id_) for id_ in found]


async def organizations_of(tx: Transaction, user_id: UserId) -> Sequence[OrganizationId]:
    """Find the organisations that a user is a member of, deleted ones too, by id."""
    member = OrganizationMember
    found = await tx.execute(
        select(member.organization_id).where(member.user_id == user_id).order_by(member.organization_id)
    )
    return [OrganizationId(id_) for id_ in found.scalars()]


async def _lock_organization(tx: Transaction, id_: OrganizationId, *, is_shared: bool) -> None:
    alive = select(Organization.id).where(Organization.id == id_, Organization.deleted.is_(False))
    # FOR SHARE, and FOR NO KEY UPDATE.
    locked = alive.with_for_update(read=True) if is_shared else alive.with_for_update(key_share=True)
    if await tx.scalar(locked) is None:
        raise Refusal.not_found("organization", str(id_))


def _name_taken(name: object) -> Refusal:
    return Refusal(Reason.NAME_TAKEN, f"there is an organisation named {name!r}")
