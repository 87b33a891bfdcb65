"""Organisations, members and provisioner keys as they are stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from prebuilds.domain.ids import GroupId, OrganizationId, ProvisionerKeyId, UserId
from prebuilds.domain.principals import Role
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


@dataclass(frozen=True, slots=True)
class OrganizationRow:
    """An organisation."""

    id: OrganizationId
    name: str
    display_name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A user's part in an organisation."""

    organization_id: OrganizationId
    user_id: UserId
    user_name: str
    roles: tuple[Role, ...]
    created_at: datetime
    quota_used: int
    group_ids: tuple[GroupId, ...]
    quota_allowance: int | None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A provisioner key, without its secret."""

    id: ProvisionerKeyId
    organization_id: OrganizationId | None
    name: str
    tags: Mapping[str, str]
    created_at: datetime
    revoked_at: datetime | None


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


async def find_keys(
    tx: Transaction,
    *,
    id_: UUID | None = None,
    organization_id: OrganizationId | None = None,
    name: str | None = None,
    with_revoked: bool = True,
    after: str | None = None,
    limit: int = 1,
) -> Sequence[KeyRow]:
    """Find keys by name; without an id those of the organisation, or where that is None those for all."""
    parameters = {
        "id": id_,
        "organization_id": organization_id,
        "name": name,
        "with_revoked": with_revoked,
        "after": after,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_provisioner_keys"], parameters, row=KeyRow)
