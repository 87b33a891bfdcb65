"""What metrics show of pools: read in the background, so that a scrape costs no query (behaviour section 10).

Every replica measures for itself and by the database alone, so all show the same. One measurement is

1. *read*: one repeatable-read transaction of seven statements, whatever the number of pools; most of them a pass's own;
2. *fold*: move uncounted events into their totals, in short transactions, so that the next read has few to count.

A crash or failure between or within them loses nothing: read is exact whether or not anything was folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.reconciler.queries.organization_names import read_organization_names
from prebuilds.reconciler.queries.pools import (
    PresetRow,
    count_prebuilds,
    count_waiting,
    read_all_pools,
    read_moment,
)
from prebuilds.reconciler.rules.figures import Figures, Observed, PoolName, add_up
from prebuilds.reconciler.rules.state import Counts
from prebuilds.reconciler.wishes import Wishes
from prebuilds.store.database import Database
from prebuilds.store.pool.totals import PoolTotals, fold_events, read_totals

FOLDED_AT_ONCE: Final = 1_000
"""Events in one transaction, which holds their totals until its end."""

_BATCHES: Final = 100
"""In one measurement; what is left then is for the next."""

_NOTHING: Final = Counts()


@dataclass(frozen=True, slots=True)
class Measurement:
    """All pools at one moment, and all that ever happened to them until then."""

    at: datetime
    """By the database's clock."""
    is_paused: bool
    """Whether reconciliation is paused for the whole deployment."""
    figures: Mapping[PoolName, Figures]
    totals: Sequence[PoolTotals]


class Measuring:
    """Measures pools."""

    def __init__(self, database: Database, *, batch: int = FOLDED_AT_ONCE) -> None:
        """`batch` is how many events are folded at once."""
        self._database = database
        self._batch = batch
        self._wishes = Wishes()

    async def read(self) -> Measurement:
        """Read all pools and totals as one moment has them."""
        async with self._database.read("measure pools", snapshot=True) as tx:
            moment = await read_moment(tx)
            presets = await read_all_pools(tx)
            preset_ids = [preset.preset_id for preset in presets]
            counts = await count_prebuilds(tx, None)
            waiting = await count_waiting(tx, preset_ids)
            organizations = await read_organization_names(tx)
            totals = await read_totals(tx)
        self._wishes.forget_all_but(preset_ids)
        observed = self._observed(presets, counts, waiting, organizations)
        return Measurement(moment.at, moment.is_paused, add_up(observed, moment.at), totals)

    async def fold(self) -> int:
        """Fold what is uncounted and say how many events that were; others may be folding too."""
        folded = 0
        for _ in range(_BATCHES):
            moved = await self._database.run("fold pool events", partial(fold_events, limit=self._batch))
            folded += moved
            if moved < self._batch:
                break
        return folded

    def _observed(
        self,
        presets: Sequence[PresetRow],
        counts: Mapping[PresetId, Counts],
        waiting: Mapping[PresetId, int],
        organizations: Mapping[OrganizationId, str],
    ) -> Iterator[Observed]:
        for preset in presets:
            yield Observed(
                PoolName(organizations[preset.organization_id], preset.template_name, preset.preset_name),
                self._wishes.policy_of(preset),
                counts.get(preset.preset_id, _NOTHING),
                waiting.get(preset.preset_id, 0),
                preset.paused_at is not None,
            )
