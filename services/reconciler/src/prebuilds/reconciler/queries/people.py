"""Organisations and their members: reading them, and writing them, which the reconciler does alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy.dialects.postgresql import insert

from prebuilds.domain.ids import OrganizationId, UserId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.queries.views import MemberRow, OrganizationRow
from prebuilds.store.faults import constraint_of
from prebuilds.store.schema import Organization, OrganizationMember
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
    parameters = {
        "named": named,
        "visible": None if visible is None else list(visible),
        "after": after,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_organizations"], parameters, row=OrganizationRow)


async def find_members(
    tx: Transaction,
    organization_id: OrganizationId,
    *,
    user_id: UserId | None = None,
    name: str | None = None,
    role: Role | None = None,
    group: str | None = None,
    with_system: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int = 1,
) -> Sequence[MemberRow]:
    """Find members by name; `group` is a name or an id, `after` the last name and id of the page before."""
    parameters = {
        "organization_id": organization_id,
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


async def find_users(tx: Transaction, named: str) -> Sequence[UserId]:
    """Find people by name or id, at most two: a name that is not one person's alone names nobody."""
    return [UserId(id_) for id_ in await tx.fetch_all(_queries["find_users"], {"named": named}, row=UUID)]


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
        raise Refusal(Reason.NAME_TAKEN, f"there is an organisation named {name!r}") from violation


async def insert_member(
    tx: Transaction, organization_id: OrganizationId, user_id: UserId, roles: Sequence[Role]
) -> bool:
    """Insert a user's part in an organisation; False where the user is a member already, which stays as it is."""
    statement = (
        insert(OrganizationMember)
        .values(organization_id=organization_id, user_id=user_id, roles=[role.value for role in roles])
        .on_conflict_do_nothing(index_elements=[OrganizationMember.organization_id, OrganizationMember.user_id])
        .returning(OrganizationMember.user_id)
    )
    return await tx.scalar(statement) is not None
