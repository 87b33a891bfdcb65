"""How often what happened to pools: `pool_events` counted, without ever counting all of history anew.

An event is counted in `pool_event_totals` or it is not (`pool_events.is_counted`), and both change in one transaction.
So the totals of one moment and the uncounted events of the same moment are all events of that moment, exactly, whoever
folds meanwhile: replicas that read the same moment read the same figures, and they never fall.

Any number of folders may be at it. A crash in the middle leaves everything as it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prebuilds.domain.pools import PoolEventKind
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


@dataclass(frozen=True, slots=True)
class PoolTotals:
    """How often one thing happened to the pools of an organisation."""

    organization: str
    kind: PoolEventKind
    label: str
    """Reason of a miss, class of a failure; empty for other kinds."""
    totals: Mapping[tuple[str, str], int]
    """By names of template and preset; that of the preset is empty where creations matched none."""


@dataclass(frozen=True, slots=True)
class _TotalsRow:
    organization: str
    kind: PoolEventKind
    label: str
    templates: tuple[str, ...]
    presets: tuple[str, ...]
    totals: tuple[int, ...]


async def fold_events(tx: Transaction, *, limit: int) -> int:
    """Move at most `limit` uncounted events into the totals and say how many; 0 where none is left to this folder.

    Locks those events, passing over locked ones, then their totals in the order of the primary key.
    """
    return await tx.fetch_one(_queries["fold_events"], {"limit": limit}, row=int) or 0


async def read_totals(tx: Transaction) -> list[PoolTotals]:
    """Give how often everything happened until one moment, added up by names.

    Names that no template has any more are left out, once its last prebuild is gone; a template made again goes on
    where the deleted one of its name stopped.
    """
    return [
        PoolTotals(row.organization, row.kind, row.label, _added_up(row))
        for row in await tx.fetch_all(_queries["totals"], row=_TotalsRow)
    ]


def _added_up(row: _TotalsRow) -> Mapping[tuple[str, str], int]:
    """A pool has two entries while some of its events are not folded, and more where its template was made again."""
    totals: defaultdict[tuple[str, str], int] = defaultdict(int)
    for pool, total in zip(zip(row.templates, row.presets, strict=True), row.totals, strict=True):
        totals[pool] += total
    return totals
