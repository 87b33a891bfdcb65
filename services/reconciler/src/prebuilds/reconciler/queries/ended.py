"""What retention reads: prebuilds that failed or were canceled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prebuilds.domain.ids import PresetId, WorkspaceId
from prebuilds.reconciler.rules.retention import MOST_FAILURES_THAT_MATTER, Ended
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


@dataclass(frozen=True, slots=True)
class _EndedRow:
    preset_id: PresetId
    workspace_id: WorkspaceId
    created_at: datetime
    ended_at: datetime
    failed_deletes: int


async def read_ended(
    tx: Transaction, preset_ids: Sequence[PresetId] | None = None
) -> Mapping[PresetId, Sequence[Ended]]:
    """Read them for all pools, or for these, oldest first; a pool without any is left out."""
    terms = {
        "preset_ids": None if preset_ids is None else list(preset_ids),
        "most_failures": MOST_FAILURES_THAT_MATTER,
    }
    found: defaultdict[PresetId, list[Ended]] = defaultdict(list)
    for row in await tx.fetch_all(_queries["ended"], terms, row=_EndedRow):
        found[row.preset_id].append(Ended(row.workspace_id, row.created_at, row.ended_at, row.failed_deletes))
    return found
