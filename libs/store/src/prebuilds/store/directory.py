"""Who people and daemons are, as Postgres has it; services pass this to their chassis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from prebuilds.domain.ids import OrganizationId, ProvisionerKeyId, UserId
from prebuilds.domain.principals import AssertedRoles, Person, Role, StoredDaemonKey
from prebuilds.store.database import Database
from prebuilds.store.schema import Organization, OrganizationMember, ProvisionerKey, User
from prebuilds.store.transactions import Transaction


class StoredDirectory:
    """Users, their roles, and the keys of daemons."""

    def __init__(self, database: Database) -> None:
        """Reads and writes through this database."""
        self._database = database

    async def person(self, issuer: str, subject: str, name: str, asserted: AssertedRoles | None) -> Person | None:
        """The user of that issuer and subject, made at first sight; None for a system user, who cannot sign in.

        `asserted` are the roles of a token whose issuer is authoritative; None: the stored roles count. Organisations
        that do not exist give nobody any role.
        """
        async with self._database.transaction("sign in") as tx:
            user_id = await _user(tx, issuer, subject, name)
            if user_id is None:
                return None
            if asserted is None:
                return Person(user_id, name, await _stored_roles(tx, user_id))
            ids = await _organizations_by_name(tx, list(asserted.organizations))
            roles = {id_: asserted.organizations[known] for known, id_ in ids}
            return Person(user_id, name, roles, asserted.is_operator)

    async def daemon(self, key_id: ProvisionerKeyId) -> StoredDaemonKey | None:
        """The key of that id, if it exists and is not revoked."""
        statement = select(ProvisionerKey.secret_sha256, ProvisionerKey.organization_id, ProvisionerKey.tags).where(
            ProvisionerKey.id == key_id, ProvisionerKey.revoked_at.is_(None)
        )
        async with self._database.transaction("find provisioner key", read_only=True) as tx:
            row = (await tx.execute(statement)).one_or_none()
        if row is None:
            return None
        secret_sha256, organization_id, tags = row
        return StoredDaemonKey(
            key_id,
            secret_sha256,
            None if organization_id is None else OrganizationId(organization_id),
            cast("dict[str, str]", tags),
        )


async def _user(tx: Transaction, issuer: str, subject: str, name: str) -> UserId | None:
    seen = (
        insert(User)
        .values(issuer=issuer, subject=subject, name=name)
        .on_conflict_do_update(
            index_elements=[User.issuer, User.subject],
            set_={"last_seen_at": func.now(), "name": name},
            where=User.is_system.is_(False),
        )
        .returning(User.id)
    )
    user_id = (await tx.execute(seen)).scalar_one_or_none()
    return None if user_id is None else UserId(user_id)


async def _stored_roles(tx: Transaction, user_id: UserId) -> dict[OrganizationId, frozenset[Role]]:
    statement = (
        select(OrganizationMember.organization_id, OrganizationMember.roles)
        .join(Organization, Organization.id == OrganizationMember.organization_id)
        .where(OrganizationMember.user_id == user_id, Organization.deleted.is_(False))
    )
    rows = await tx.execute(statement)
    return {OrganizationId(id_): frozenset(Role(role) for role in roles) for id_, roles in rows}


async def _organizations_by_name(tx: Transaction, names: Sequence[str]) -> list[tuple[str, OrganizationId]]:
    statement = select(Organization.name, Organization.id).where(
        Organization.name.in_(names), Organization.deleted.is_(False)
    )
    rows = (await tx.execute(statement)).all()
    return [(name, OrganizationId(id_)) for name, id_ in rows]
