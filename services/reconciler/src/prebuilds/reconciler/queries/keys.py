"""Keys of provisioner daemons: reading them, and writing them, which the reconciler does alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from prebuilds.domain.ids import OrganizationId, ProvisionerKeyId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.queries.views import KeyRow
from prebuilds.store.faults import constraint_of
from prebuilds.store.schema import ProvisionerKey
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_NAME_TAKEN: Final = "uq_provisioner_keys_organization_id_name"

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


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


async def insert_key(
    tx: Transaction,
    id_: ProvisionerKeyId,
    *,
    organization_id: OrganizationId | None,
    name: str,
    tags: Mapping[str, str],
    secret_sha256: bytes,
) -> bool:
    """Insert a key, for all organisations where none is given; False where one of that id is there.

    Refuses NAME_TAKEN.
    """
    statement = (
        insert(ProvisionerKey)
        .values(id=id_, organization_id=organization_id, name=name, tags=dict(tags), secret_sha256=secret_sha256)
        .on_conflict_do_nothing(index_elements=[ProvisionerKey.id])
        .returning(ProvisionerKey.id)
    )
    try:
        return await tx.scalar(statement) is not None
    except UniqueViolation as violation:
        if constraint_of(violation) != _NAME_TAKEN:
            raise
        raise _name_taken(name) from violation


async def lock_key(tx: Transaction, id_: ProvisionerKeyId) -> None:
    """Lock a key's row; what it holds is read in later statements."""
    await tx.execute(select(ProvisionerKey.id).where(ProvisionerKey.id == id_).with_for_update(key_share=True))


async def update_key(tx: Transaction, id_: ProvisionerKeyId, values: Mapping[str, object]) -> None:
    """Set these columns of a key. Refuses NAME_TAKEN."""
    try:
        await tx.execute(update(ProvisionerKey).where(ProvisionerKey.id == id_).values(**values))
    except UniqueViolation as violation:
        if constraint_of(violation) != _NAME_TAKEN:
            raise
        raise _name_taken(values.get("name")) from violation


async def mark_revoked(tx: Transaction, id_: ProvisionerKeyId) -> None:
    """Mark a key revoked from now on; one that is revoked keeps its time. Locks its row."""
    statement = update(ProvisionerKey).where(ProvisionerKey.id == id_, ProvisionerKey.revoked_at.is_(None))
    await tx.execute(statement.values(revoked_at=func.now()))


def _name_taken(name: object) -> Refusal:
    return Refusal(Reason.NAME_TAKEN, f"there is a key named {name!r}")
