"""The sweepers' part of the outbox: whatever the process that committed a row did not publish itself.

Postgres is authoritative: a row is there until it is published, and only its deletion says that it is. A sweeper leases
rows and commits, publishes, and removes what JetStream has acknowledged in another transaction. A crash

- before the lease's commit: nothing happened;
- after it: the rows are leased again when `lease_for` is over;
- between publishing and removing: they are published again; JetStream drops the copy by its id, or readers look twice.

The process that committed publishes its own rows without a lease; `older_than` leaves it the time to.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final
from uuid import UUID

from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.outbox")


async def lease(tx: Transaction, *, older_than: timedelta, lease_for: timedelta, limit: int) -> list[OutboxRow]:
    """Lease the oldest rows that nobody else holds, by age; empty when there are none. Passes over locked rows."""
    return await tx.fetch_all(
        _queries["lease"], {"older_than": older_than, "lease_for": lease_for, "limit": limit}, row=OutboxRow
    )


async def remove(tx: Transaction, ids: Collection[UUID]) -> int:
    """Remove published rows, leased or not, and say how many were still there."""
    if not ids:
        return 0
    return (await tx.run(_queries["remove"], {"ids": sorted(ids)})).rowcount


async def oldest_age(tx: Transaction) -> timedelta | None:
    """Give the age of the oldest row that is not published yet; None when the outbox is empty."""
    return await tx.fetch_one(_queries["oldest_age"], row=timedelta)
