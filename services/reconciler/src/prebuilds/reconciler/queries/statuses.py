"""What a pass puts on record of a preset that it has locked: its status, and that it is over quota."""

from __future__ import annotations

from typing import Final

from prebuilds.domain.ids import SYSTEM_USER_ID, PresetId
from prebuilds.domain.pools import PresetStatus
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


async def read_last_fault(tx: Transaction, preset_id: PresetId) -> str:
    """The error of the newest start that failed by the template's fault; empty where there is none."""
    found = await tx.fetch_one(
        _queries["last_fault"], {"preset_id": preset_id, "system_user_id": SYSTEM_USER_ID}, row=str
    )
    return found or ""


async def set_status(tx: Transaction, preset_id: PresetId, status: PresetStatus, message: str) -> None:
    """Set the status of a locked preset; `message` says for people what is wrong, without secrets."""
    await tx.run(_queries["set_status"], {"preset_id": preset_id, "status": status, "message": message})


async def mark_over_quota(tx: Transaction, preset_id: PresetId, *, is_over_quota: bool) -> None:
    """Put on record whether the allowance keeps a locked preset's pool from its target, and since when it does."""
    await tx.run(_queries["mark_over_quota"], {"preset_id": preset_id, "is_over_quota": is_over_quota})
