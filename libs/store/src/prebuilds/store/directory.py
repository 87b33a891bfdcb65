"""Who people and daemons are, as Postgres has it; services pass this to their chassis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from prebuilds.domain.ids import OrganizationId, ProvisionerKeyId, UserId
from prebuilds.domain.names import MAX_NAME_LENGTH
from prebuilds.domain.principals import AssertedRoles, Person, Role, StoredDaemonKey
from prebuilds.store.database import Database
from prebuilds.store.schema import Organization, OrganizationMember, ProvisionerKey, User
from prebuilds.store.transactions import Transaction

SEEN_TO: Final = timedelta(minutes=1)
"""How exactly it is known when somebody last called; so seldom does signing in write."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A user, as far as it matters for signing in."""

    id: UserId
    name: str
    may_sign_in: bool
    seen_lately: bool


class StoredDirectory:
    """Users, their roles, and the keys of daemons."""

    def __init__(self, database: Database) -> None:
        """Reads and writes through this database."""
        self._database = database

    async def person(self, issuer: str, subject: str, name: str, asserted: AssertedRoles | None) -> Person | None:
        """The user of that issuer and subject, made at first sight; None for who cannot sign in.

        Neither a system user nor a deleted one can. `name` counts at first sight only: a name can be changed here, and
        stays. `asserted` are the roles of a token whose issuer is authoritative; None: the stored roles count.
        Organisations that do not exist give nobody any role.
        """
        async with self._database.transaction("sign in") as tx:
            user = await _known(tx, issuer, subject)
            if user is None:
                await _make(tx, issuer, subject, name)
                # A later statement: whom another sign-in made meanwhile is visible only to it.
                user = await _known(tx, issuer, subject)
            if user is None or not user.may_sign_in:
                return None
            if not user.seen_lately:
                await tx.execute(update(User).where(User.id == user.id).values(last_seen_at=func.now()))
            if asserted is None:
                return Person(user.id, user.name, await _stored_roles(tx, user.id))
            ids = await _organizations_by_name(tx, list(asserted.organizations))
            roles = {id_: asserted.organizations[known] for known, id_ in ids}
            return Person(user.id, user.name, roles, asserted.is_operator)

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


async def _known(tx: Transaction, issuer: str, subject: str) -> _Known | None:
    may_sign_in = User.deleted_at.is_(None) & User.is_system.is_(False)
    seen_lately = func.coalesce(User.last_seen_at > func.now() - SEEN_TO, False)
    statement = select(User.id, User.name, may_sign_in, seen_lately)
    row = (await tx.execute(statement.where(User.issuer == issuer, User.subject == subject))).one_or_none()
    return None if row is None else _Known(UserId(row[0]), *row[1:])


async def _make(tx: Transaction, issuer: str, subject: str, name: str) -> None:
    shown = name.strip()[:MAX_NAME_LENGTH] or subject[:MAX_NAME_LENGTH]
    statement = insert(User).values(issuer=issuer, subject=subject, name=shown)
    await tx.execute(statement.on_conflict_do_nothing(index_elements=[User.issuer, User.subject]))


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
