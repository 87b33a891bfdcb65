"""What plans are made of: all pools at one moment, or one pool under its preset's lock.

The snapshot counts in SQL; the look at one pool reads its prebuilds one by one, because a plan that is executed names
what it deletes. Both plan by the same rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from prebuilds.domain.ids import PresetId, TemplateId
from prebuilds.reconciler.queries.looks import look_at
from prebuilds.reconciler.queries.pools import (
    Extent,
    Moment,
    PresetRow,
    count_starting,
    find_pools,
    read_moment,
    read_presets,
    read_quotas,
)
from prebuilds.reconciler.queries.surveys import survey
from prebuilds.reconciler.rules.planner import Block, Config, Plan, can_skip, name_deletions, plan
from prebuilds.reconciler.rules.state import Quota, count
from prebuilds.reconciler.rules.values import PresetValue
from prebuilds.reconciler.wishes import Wishes
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All pools of an extent as one moment has them: how many there are, and those that have work."""

    moment: Moment
    seen: int
    paused: int
    backing_off: int
    work: Sequence[PresetRow]


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
    values: Sequence[PresetValue]
    """What they are built with."""


class Planning:
    """Reads pools and plans them."""

    def __init__(self, *, config: Config, lookback: timedelta) -> None:
        """Plan by `config`; failures count for backoff within `lookback`."""
        self._config = config
        self._lookback = lookback
        self._counted_failures = max(config.hard_limit, 1)
        self._wishes = Wishes()

    async def take_snapshot(self, tx: Transaction, extent: Extent) -> Snapshot:
        """Plan all of these pools, in a constant number of statements of a transaction that sees one moment.

        Pools that are alike are planned once. The plans are not kept: who works on a pool plans it again.
        """
        moment = await read_moment(tx)
        preset_ids = None if extent.everything else await find_pools(tx, extent)
        situations = await survey(tx, preset_ids, lookback=self._lookback, hard_limit=self._counted_failures)
        looked_at = [each for each in situations if not each.is_paused and not moment.is_paused]
        starting = await _count_starting(tx, {each.bounded_template_id for each in looked_at})
        quotas = await _read_quotas(tx, [each.preset_ids[0] for each in looked_at if each.has_allowance])
        if extent.everything:
            self._wishes.forget_all_but([preset_id for each in situations for preset_id in each.preset_ids])
        work: list[PresetId] = []
        backing_off = 0
        for situation in looked_at:
            policy = self._wishes.policy_of_alike(situation)
            if can_skip(policy, situation.counts):
                continue
            made = plan(
                policy,
                situation.counts,
                situation.history,
                moment.at,
                self._config,
                template_starting=starting.get(situation.bounded_template_id, 0),
                quota=quotas.get(situation.preset_ids[0]),
            )
            if made.has_work:
                work.extend(situation.preset_ids)
            if Block.BACKING_OFF in made.blocks:
                backing_off += len(situation.preset_ids)
        seen, unpaused = (sum(len(each.preset_ids) for each in some) for some in (situations, looked_at))
        presets = await read_presets(tx, work) if work else ()
        return Snapshot(moment, seen, seen - unpaused, backing_off, presets)

    async def look_at(self, tx: Transaction, preset_id: PresetId) -> Planned | Paused | None:
        """Plan one pool, whose preset an earlier statement has locked; None for a preset that does not exist."""
        look = await look_at(tx, preset_id, lookback=self._lookback, hard_limit=self._counted_failures)
        if look is None:
            return None
        if look.is_paused:
            return Paused()
        preset, policy = look.preset, self._wishes.policy_of(look.preset)
        starting = await _count_starting(tx, {preset.template_id} if preset.max_starting is not None else set())
        quota = (await _read_quotas(tx, [preset_id] if preset.has_allowance else [])).get(preset_id)
        made = plan(
            policy,
            count(policy, look.prebuilds, look.at),
            look.history,
            look.at,
            self._config,
            template_starting=starting.get(preset.template_id, 0),
            quota=quota,
        )
        return Planned(preset, name_deletions(made, policy, look.prebuilds, look.at), quota, look.values)


async def _count_starting(
    tx: Transaction, template_ids: Collection[TemplateId | None]
) -> Mapping[TemplateId | None, int]:
    bounded = [template_id for template_id in template_ids if template_id is not None]
    return {**await count_starting(tx, bounded)} if bounded else {}


async def _read_quotas(tx: Transaction, preset_ids: Sequence[PresetId]) -> Mapping[PresetId, Quota]:
    return await read_quotas(tx, preset_ids) if preset_ids else {}
