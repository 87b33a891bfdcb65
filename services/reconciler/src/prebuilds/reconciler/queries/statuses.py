"""What a pass puts on record of a preset that it has locked: its status, and that it is over quota."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from prebuilds.domain.ids import SYSTEM_USER_ID, PresetId
from prebuilds.domain.pools import PresetStatus
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


async def read_last_faults(tx: Transaction, preset_ids: Collection[PresetId]) -> Mapping[PresetId, str]:
    """The errors of the newest starts that failed by the template's fault; a preset without one is left out."""
    parameters = {"preset_ids": list(preset_ids), "system_user_id": SYSTEM_USER_ID}
    cursor = await tx.run(_queries["last_faults"], parameters)
    return {PresetId(preset_id): error for preset_id, error in await cursor.fetchall()}


async def set_status(tx: Transaction, preset_id: PresetId, status: PresetStatus, message: str) -> None:
    """Set the status of a locked preset; `message` says for people what is wrong, without secrets."""
    await tx.run(_queries["set_status"], {"preset_id": preset_id, "status": status, "message": message})


async def mark_over_quota(tx: Transaction, preset_id: PresetId, *, is_over_quota: bool) -> None:
    """Put on record whether the allowance keeps a locked preset's pool from its target, and since when it does."""
    await tx.run(_queries["mark_over_quota"], {"preset_id": preset_id, "is_over_quota": is_over_quota})
