"""What only people want to know of pools, beyond what a pass reads of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId
from prebuilds.reconciler.queries.filters import PoolConditions
from prebuilds.reconciler.queries.pools import PresetRow, read_presets
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


async def list_pools(
    tx: Transaction,
    organization_id: OrganizationId,
    wanted: PoolConditions,
    *,
    after: tuple[str, str, UUID] | None = None,
    limit: int | None = None,
) -> list[PresetRow]:
    """List the presets of an organisation's pools by template, name and id; `after` are those of the page before."""
    parameters = {
        "organization_id": organization_id,
        "template": wanted.template,
        "preset": wanted.preset,
        "version": wanted.version,
        "is_active": wanted.is_active,
        "status": wanted.status,
        "after_template": after[0] if after else None,
        "after": after[1] if after else None,
        "after_id": after[2] if after else None,
        "limit": limit,
    }
    listed = await tx.fetch_all(_queries["pool_page"], parameters, row=UUID)
    presets = {preset.preset_id: preset for preset in await read_presets(tx, [PresetId(id_) for id_ in listed])}
    return [presets[PresetId(id_)] for id_ in listed if id_ in presets]


async def read_filling_since(tx: Transaction, template_ids: Sequence[TemplateId]) -> Mapping[TemplateId, datetime]:
    """Since when templates have as many prebuilds starting as they have; one without any is left out."""
    cursor = await tx.run(_queries["filling_since"], {"template_ids": list(template_ids)})
    return {TemplateId(template_id): since for template_id, since in await cursor.fetchall()}
