"""What plans are made of: all pools at one moment, or one pool under its preset's lock.

The snapshot counts in SQL; the look at one pool reads its prebuilds one by one, because a plan that is executed names
what it deletes. Both plan by the same rules.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId
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
from prebuilds.reconciler.queries.surveys import Situation, survey
from prebuilds.reconciler.rules.planner import BackOff, Block, Config, Create, Plan, can_skip, name_deletions, plan
from prebuilds.reconciler.rules.state import Policy, Quota, count
from prebuilds.reconciler.rules.target import change_within
from prebuilds.reconciler.rules.values import PresetValue
from prebuilds.reconciler.wishes import Wishes
from prebuilds.store.transactions import Transaction

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_GRAIN: Final = timedelta(milliseconds=100)
"""Of the moments at which pools are looked at because something changes by itself."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All pools of an extent as one moment has them: how many there are, and those that have work."""

    moment: Moment
    seen: int
    paused: int
    backing_off: int
    work: Sequence[PresetRow]
    changes: Mapping[datetime, Collection[PresetId]]
    """The pools that will have other work by themselves, by when; within the horizon."""


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

    def __init__(self, *, config: Config, lookback: timedelta, horizon: timedelta = timedelta()) -> None:
        """Plan by `config`; failures count for backoff within `lookback`, changes are foreseen up to `horizon`."""
        self._config = config
        self._lookback = lookback
        self._horizon = horizon
        self._counted_failures = max(config.hard_limit, 1)
        self._wishes = Wishes()

    async def take_snapshot(self, tx: Transaction, extent: Extent) -> Snapshot:
        """Plan all of these pools, in a constant number of statements of a transaction that sees one moment.

        Pools that are alike are planned once, but for those that take of what a bound leaves: each of its places is
        handed out once, at random, and who gets none has no work. The plans are not kept: who works on a pool plans it
        again.
        """
        moment = await read_moment(tx)
        preset_ids = None if extent.everything else await find_pools(tx, extent)
        situations = await survey(tx, preset_ids, lookback=self._lookback, hard_limit=self._counted_failures)
        looked_at = [each for each in situations if not each.is_paused and not moment.is_paused]
        bounds = _Bounds(
            await _count_starting(tx, {each.bounded_template_id for each in looked_at}),
            await _read_quotas(tx, [each.preset_ids[0] for each in looked_at if each.bounded_organization_id]),
        )
        if extent.everything:
            self._wishes.forget_all_but([preset_id for each in situations for preset_id in each.preset_ids])
        work: list[PresetId] = []
        backing_off = 0
        changes: defaultdict[datetime, list[PresetId]] = defaultdict(list)
        random.shuffle(looked_at)
        for situation in looked_at:
            policy = self._wishes.policy_of_alike(situation)
            if can_skip(policy, situation.counts):
                continue
            for planned, made in self._plan_alike(situation, policy, moment.at, bounds):
                if made.has_work:
                    work.extend(planned)
                if Block.BACKING_OFF in made.blocks:
                    backing_off += len(planned)
                for change in _changes_within(policy, made, moment.at, self._horizon):
                    changes[change].extend(planned)
        seen, unpaused = (sum(len(each.preset_ids) for each in some) for some in (situations, looked_at))
        presets = await read_presets(tx, work) if work else ()
        return Snapshot(moment, seen, seen - unpaused, backing_off, presets, changes)

    def _plan_alike(
        self, situation: Situation, policy: Policy, now: datetime, bounds: _Bounds
    ) -> Iterator[tuple[Sequence[PresetId], Plan]]:
        unplanned = list(situation.preset_ids)
        if situation.bounded_template_id is not None:
            random.shuffle(unplanned)
        while unplanned:
            made = plan(
                policy,
                situation.counts,
                situation.history,
                now,
                self._config,
                template_starting=bounds.starting_beside(situation),
                quota=bounds.quota_of(situation),
            )
            planned = unplanned[:1] if bounds.take(situation, made) else unplanned
            yield planned, made
            unplanned = unplanned[len(planned) :]

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


class _Bounds:
    """What templates and allowances leave to new prebuilds, less what one snapshot has handed out."""

    def __init__(self, starting: Mapping[TemplateId | None, int], quotas: Mapping[PresetId, Quota]) -> None:
        self._starting = defaultdict[TemplateId | None, int](int, starting)
        self._quotas = quotas
        self._spent: defaultdict[OrganizationId | None, int] = defaultdict(int)

    def starting_beside(self, situation: Situation) -> int:
        """How many of the template's places are used, or handed out."""
        return self._starting[situation.bounded_template_id]

    def quota_of(self, situation: Situation) -> Quota | None:
        """What is left of the allowance, if there is one."""
        quota = self._quotas.get(situation.preset_ids[0])
        return quota and replace(quota, room=quota.room - self._spent[situation.bounded_organization_id])

    def take(self, situation: Situation, made: Plan) -> bool:
        """Hand out what the plan's creates take; whether that leaves less to others."""
        creates = sum(action.count for action in made.actions if isinstance(action, Create))
        quota = self._quotas.get(situation.preset_ids[0])
        if situation.bounded_template_id is not None:
            self._starting[situation.bounded_template_id] += creates
        if quota is not None:
            self._spent[situation.bounded_organization_id] += creates * quota.cost
        return creates > 0 and (situation.bounded_template_id is not None or quota is not None)


def _changes_within(policy: Policy, made: Plan, now: datetime, horizon: timedelta) -> Iterator[datetime]:
    """When a pool is soon planned otherwise by itself: its schedule's next edge, its backoff's end.

    Rounded up, so that many pools that fail one after another become few moments.
    """
    change = change_within(policy.wish, now, horizon, is_active=policy.is_active)
    if change is not None:
        yield _rounded_up(change)
    if Block.BACKING_OFF in made.blocks:
        for action in made.actions:
            if isinstance(action, BackOff) and action.until < now + horizon:
                yield _rounded_up(action.until + timedelta.resolution)  # at that moment itself it still holds


def _rounded_up(moment: datetime) -> datetime:
    return moment + (_EPOCH - moment) % _GRAIN


async def _count_starting(
    tx: Transaction, template_ids: Collection[TemplateId | None]
) -> Mapping[TemplateId | None, int]:
    bounded = [template_id for template_id in template_ids if template_id is not None]
    return {**await count_starting(tx, bounded)} if bounded else {}


async def _read_quotas(tx: Transaction, preset_ids: Sequence[PresetId]) -> Mapping[PresetId, Quota]:
    return await read_quotas(tx, preset_ids) if preset_ids else {}
