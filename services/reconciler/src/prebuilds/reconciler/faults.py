"""Why prebuilds of presets fail by the template's fault, as people are told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from prebuilds.chassis.logs import clean_text
from prebuilds.domain.ids import PresetId
from prebuilds.reconciler.queries.statuses import read_last_faults
from prebuilds.store.transactions import Transaction

MAX_MESSAGE: Final = 1000
"""Characters."""


async def last_faults(tx: Transaction, preset_ids: Collection[PresetId]) -> Mapping[PresetId, str]:
    """The newest errors by the template's fault, without secrets; a preset without any is left out."""
    if not preset_ids:
        return {}
    errors = await read_last_faults(tx, preset_ids)
    return {preset_id: clean_text(error)[:MAX_MESSAGE] for preset_id, error in errors.items()}
