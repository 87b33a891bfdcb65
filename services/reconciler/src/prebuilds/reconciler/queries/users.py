"""Users: reading them, and the writing of them that is not their own signing in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert

from prebuilds.domain.ids import OrganizationId, UserId
from prebuilds.domain.names import is_id
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.queries.views import UserRow
from prebuilds.store.faults import constraint_of
from prebuilds.store.schema import User
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_IS_KNOWN: Final = "uq_users_issuer_subject"

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


@dataclass(frozen=True, slots=True)
class NamedUser:
    """A user that somebody may have meant."""

    id: UserId
    name: str
    is_system: bool


async def find_users(
    tx: Transaction,
    *,
    id_: UUID | None = None,
    organization_ids: Collection[OrganizationId] | None = None,
    name: str | None = None,
    issuer: str | None = None,
    subject: str | None = None,
    with_system: bool = False,
    with_deleted: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int = 1,
) -> Sequence[UserRow]:
    """Find users by name, of these organisations or of all; `after` is the last name and id of the page before."""
    parameters = {
        "id": id_,
        "organization_ids": None if organization_ids is None else list(organization_ids),
        "name": name,
        "issuer": issuer,
        "subject": subject,
        "with_system": with_system,
        "with_deleted": with_deleted,
        "after": after[0] if after else None,
        "after_id": after[1] if after else None,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_users"], parameters, row=UserRow)


async def find_named_users(
    tx: Transaction, named: Collection[str], organization_id: OrganizationId | None = None
) -> Sequence[NamedUser]:
    """Find everybody who goes by one of these names or ids: members of an organisation or, without one, all users.

    What looks like an id is one: no name leads to somebody else.
    """
    parameters = {
        "ids": [UUID(text) for text in named if is_id(text)],
        "names": [text for text in named if not is_id(text)],
        "organization_id": organization_id,
    }
    return await tx.fetch_all(_queries["find_named_users"], parameters, row=NamedUser)


async def insert_user(tx: Transaction, id_: UserId, *, name: str, issuer: str, subject: str) -> bool:
    """Insert a user who has never called; False where one of that id is there. Refuses ALREADY_EXISTS."""
    statement = (
        insert(User)
        .values(id=id_, name=name, issuer=issuer, subject=subject, last_seen_at=None)
        .on_conflict_do_nothing(index_elements=[User.id])
        .returning(User.id)
    )
    try:
        return await tx.scalar(statement) is not None
    except UniqueViolation as violation:
        if constraint_of(violation) != _IS_KNOWN:
            raise
        raise Refusal(Reason.ALREADY_EXISTS, "there is a user of that issuer and subject") from violation


async def rename_user(tx: Transaction, id_: UserId, name: str) -> None:
    """Set a user's name."""
    await tx.execute(update(User).where(User.id == id_).values(name=name))


async def mark_deleted(tx: Transaction, id_: UserId) -> bool:
    """Mark a user deleted from now on; False where it was. Locks the user's row."""
    statement = update(User).where(User.id == id_, User.deleted_at.is_(None)).values(deleted_at=func.now())
    return await tx.scalar(statement.returning(User.id)) is not None
