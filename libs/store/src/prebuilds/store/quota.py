"""What the prebuilds of an organisation may cost: read and used by one transaction at a time (behaviour section 9)."""

from __future__ import annotations

from typing import Final

from prebuilds.domain.ids import OrganizationId
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store")


async def lock_quota(tx: Transaction, organization_id: OrganizationId) -> bool:
    """Lock the quota of the organisation's prebuilds until the transaction ends; False where somebody else holds it.

    An advisory lock: take it before any row (design section 5), and read what is used in a later statement.
    """
    return bool(await tx.fetch_one(_queries["lock_quota"], {"organization_id": organization_id}, row=bool))
