"""What plans are made of: all pools at one moment, or one pool under its preset's lock.

The snapshot counts in SQL; the look at one pool reads its prebuilds one by one, because a plan that is executed names
what it deletes. Both plan by the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prebuilds.domain.ids import PresetId, TemplateId
from prebuilds.reconciler.queries.pools import (
    Extent,
    Moment,
    PresetRow,
    count_prebuilds,
    count_starting,
    find_pools,
    read_histories,
    read_moment,
    read_prebuilds,
    read_presets,
    read_quotas,
)
from prebuilds.reconciler.rules.planner import Config, Plan, can_skip, name_deletions, plan
from prebuilds.reconciler.rules.state import Counts, History, Quota, count
from prebuilds.reconciler.wishes import Wishes
from prebuilds.store.transactions import Transaction

_NOTHING: Final = Counts()
_NO_HISTORY: Final = History()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All pools of an extent as one moment has them, with their plans."""

    moment: Moment
    presets: Sequence[PresetRow]
    plans: Mapping[PresetId, Plan]
    """Of the pools that are neither paused nor skippable."""
    paused: int

    def with_work(self) -> list[PresetRow]:
        """The pools to work on."""
        return [
            preset
            for preset in self.presets
            if (made := self.plans.get(preset.preset_id)) is not None and made.has_work
        ]


@dataclass(frozen=True, slots=True)
class Paused:
    """The pool is paused: nothing is to be done."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One pool with its plan, in which prebuilds to delete are named."""

    preset: PresetRow
    plan: Plan
    quota: Quota | None
    """What the plan's creates were admitted by, and are charged; None without an allowance."""


class Planning:
    """Reads pools and plans them."""

    def __init__(self, *, config: Config, lookback: timedelta) -> None:
        """Plan by `config`; failures count for backoff within `lookback`."""
        self._config = config
        self._lookback = lookback
        self._wishes = Wishes()

    async def take_snapshot(self, tx: Transaction, extent: Extent) -> Snapshot:
        """Plan all of these pools, in a constant number of statements of a transaction that sees one moment."""
        moment = await read_moment(tx)
        preset_ids = await find_pools(tx, extent)
        presets = await read_presets(tx, preset_ids)
        counts = await count_prebuilds(tx, preset_ids)
        histories = await self._histories(tx, preset_ids)
        starting = await _starting(tx, presets)
        quotas = await _quotas(tx, presets)
        if extent.everything:
            self._wishes.forget_all_but(preset_ids)
        plans: dict[PresetId, Plan] = {}
        paused = 0
        for preset in presets:
            if preset.paused_at is not None or moment.is_paused:
                paused += 1
                continue
            policy, counted = self._wishes.policy_of(preset), counts.get(preset.preset_id, _NOTHING)
            if not can_skip(policy, counted):
                plans[preset.preset_id] = plan(
                    policy,
                    counted,
                    histories.get(preset.preset_id, _NO_HISTORY),
                    moment.at,
                    self._config,
                    template_starting=starting.get(preset.template_id, 0),
                    quota=quotas.get(preset.preset_id),
                )
        return Snapshot(moment, presets, plans, paused)

    async def look_at(self, tx: Transaction, preset_id: PresetId) -> Planned | Paused | None:
        """Plan one pool, whose preset an earlier statement has locked; None for a preset that does not exist."""
        moment = await read_moment(tx)
        presets = await read_presets(tx, [preset_id])
        if not presets:
            return None
        (preset,) = presets
        if preset.paused_at is not None or moment.is_paused:
            return Paused()
        prebuilds = (await read_prebuilds(tx, [preset_id])).get(preset_id, ())
        histories = await self._histories(tx, [preset_id])
        starting = await _starting(tx, presets)
        quota = (await _quotas(tx, presets)).get(preset_id)
        policy = self._wishes.policy_of(preset)
        made = plan(
            policy,
            count(policy, prebuilds, moment.at),
            histories.get(preset_id, _NO_HISTORY),
            moment.at,
            self._config,
            template_starting=starting.get(preset.template_id, 0),
            quota=quota,
        )
        return Planned(preset, name_deletions(made, policy, prebuilds, moment.at), quota)

    async def _histories(self, tx: Transaction, preset_ids: Sequence[PresetId]) -> Mapping[PresetId, History]:
        return await read_histories(tx, preset_ids, lookback=self._lookback, hard_limit=max(self._config.hard_limit, 1))


async def _starting(tx: Transaction, presets: Sequence[PresetRow]) -> Mapping[TemplateId, int]:
    bounded = {preset.template_id for preset in presets if preset.max_starting is not None}
    return await count_starting(tx, sorted(bounded)) if bounded else {}


async def _quotas(tx: Transaction, presets: Sequence[PresetRow]) -> Mapping[PresetId, Quota]:
    bounded = [preset.preset_id for preset in presets if preset.has_allowance]
    return await read_quotas(tx, bounded) if bounded else {}
