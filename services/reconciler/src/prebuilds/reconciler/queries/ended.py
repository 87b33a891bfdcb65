"""What retention reads: prebuilds that failed or were canceled, and marked ones that are not on their way out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prebuilds.domain.ids import PresetId, WorkspaceId
from prebuilds.reconciler.queries.forms import Forms
from prebuilds.reconciler.rules.retention import MOST_FAILURES_THAT_MATTER, Ended
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

ENDED: Final = Forms.of(SqlFolder("prebuilds.reconciler.queries")["ended"])


@dataclass(frozen=True, slots=True)
class _EndedRow:
    preset_id: PresetId
    workspace_id: WorkspaceId
    created_at: datetime
    ended_at: datetime
    is_marked: bool
    failed_deletes: int


async def read_ended(
    tx: Transaction, preset_ids: Collection[PresetId] | None = None
) -> Mapping[PresetId, Sequence[Ended]]:
    """Read them for all pools, or for these, oldest first; a pool without any is left out."""
    statement, parameters = ENDED.about(preset_ids, most_failures=MOST_FAILURES_THAT_MATTER)
    found: defaultdict[PresetId, list[Ended]] = defaultdict(list)
    for row in await tx.fetch_all(statement, parameters, row=_EndedRow):
        ended = Ended(row.workspace_id, row.created_at, row.ended_at, row.failed_deletes, is_marked=row.is_marked)
        found[row.preset_id].append(ended)
    return found
