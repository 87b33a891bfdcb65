"""The names of organisations, for labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prebuilds.domain.ids import OrganizationId
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


async def read_organization_names(tx: Transaction) -> Mapping[OrganizationId, str]:
    """The names of all organisations, those of deleted ones too: their prebuilds may outlive them for a while."""
    cursor = await tx.run(_queries["organization_names"])
    return {OrganizationId(organization_id): name for organization_id, name in await cursor.fetchall()}
