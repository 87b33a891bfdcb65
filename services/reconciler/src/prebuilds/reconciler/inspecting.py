"""Pools as people see them: state, target and where it comes from, plan, and what blocks it since when.

With the same statements and rules as a pass, for up to some hundred pools in one snapshot: whoever wants more walks
through them, so that neither a statement nor the event loop is busy with ten thousand pools at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never
from uuid import UUID

from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId
from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.refusals import Refusal
from prebuilds.reconciler.faults import last_faults
from prebuilds.reconciler.queries.filters import PoolConditions
from prebuilds.reconciler.queries.pauses import read_pauses
from prebuilds.reconciler.queries.people import find_organizations
from prebuilds.reconciler.queries.pool_views import list_pools, read_filling_since
from prebuilds.reconciler.queries.pools import (
    PresetRow,
    count_prebuilds,
    count_starting,
    count_waiting,
    read_histories,
    read_moment,
    read_prebuilds,
    read_quotas,
)
from prebuilds.reconciler.queries.views import Pause
from prebuilds.reconciler.rules.planner import (
    BackOff,
    Block,
    Config,
    Delete,
    Plan,
    can_skip,
    name_deletions,
    plan,
    reaches_hard_limit,
)
from prebuilds.reconciler.rules.state import Counts, History, Policy, Quota, count
from prebuilds.reconciler.rules.target import NextChange, next_change_after
from prebuilds.reconciler.wishes import policy_of, wish_of
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction

_NOTHING: Final = Counts()
_NO_HISTORY: Final = History()


class BlockKind(StrEnum):
    """What keeps a pool from its target, the pause included."""

    BACKING_OFF = "backing_off"
    HARD_LIMITED = "hard_limited"
    VALIDATION_FAILED = "validation_failed"
    MAX_STARTING = "max_starting"
    OVER_QUOTA = "over_quota"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class BlockView:
    """One thing that keeps a pool from its target, and since when."""

    kind: BlockKind
    since: datetime
    until: datetime | None = None
    detail: str = ""
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool at one moment."""

    preset: PresetRow
    counts: Counts
    plan: Plan
    can_skip: bool
    next_change: NextChange | None
    blocks: tuple[BlockView, ...]
    waiting: int
    error: str
    at: datetime

    @property
    def order(self) -> tuple[str, str, UUID]:
        """Where the pool stands in a list."""
        return (self.preset.template_name, self.preset.preset_name, self.preset.preset_id)


@dataclass(frozen=True, slots=True)
class PoolFilter:
    """Which pools of an organisation."""

    conditions: PoolConditions
    is_blocked: bool | None = None
    """None: does not matter."""

    def admits(self, view: PoolView) -> bool:
        """Whether a pool satisfies every condition; those of its preset as `list_pools` does."""
        wanted, preset = self.conditions, view.preset
        return (
            wanted.template in {None, preset.template_name, str(preset.template_id)}
            and wanted.preset in {None, preset.preset_name, str(preset.preset_id)}
            and wanted.version in {None, preset.version_name, str(preset.version_id)}
            and wanted.is_active in {None, preset.is_active}
            and wanted.status in {None, preset.status}
            and self.admits_blocks(view)
        )

    def admits_blocks(self, view: PoolView) -> bool:
        """Whether a pool that satisfies the conditions of its preset satisfies the other one."""
        return self.is_blocked in {None, bool(view.blocks)}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is read of some pools, beside their presets."""

    at: datetime
    counts: Mapping[PresetId, Counts]
    histories: Mapping[PresetId, History]
    starting: Mapping[TemplateId, int]
    filling_since: Mapping[TemplateId, datetime]
    waiting: Mapping[PresetId, int]
    faults: Mapping[PresetId, str]
    """The newest error by the template's fault, of the pools that are hard limited or become so."""
    pauses: Mapping[UUID | None, Pause]
    """By template or preset; that of the deployment under None."""
    quotas: Mapping[PresetId, Quota]
    """Of the pools whose organisation has an allowance for them."""

    def pauses_of(self, preset: PresetRow) -> list[Pause]:
        """The pauses that reach a pool, the widest first."""
        reach = (None, preset.template_id, preset.preset_id)
        return [self.pauses[target_id] for target_id in reach if target_id in self.pauses]


class Inspector:
    """Reads pools for people."""

    def __init__(self, database: Database, *, config: Config, lookback: timedelta) -> None:
        """`config` and `lookback` are those of the passes."""
        self._database = database
        self._config = config
        self._lookback = lookback

    async def walk(
        self,
        organization_id: OrganizationId,
        wanted: PoolConditions,
        *,
        after: tuple[str, str, UUID] | None = None,
        step: int,
    ) -> AsyncGenerator[list[PoolView]]:
        """Give the pools of an organisation by template, name and id, `step` at a time, each lot of one moment.

        Raises Refusal NOT_FOUND once the organisation is deleted, for whoever watches it.
        """
        while True:
            async with self._database.read("list pools", snapshot=True) as tx:
                if not await find_organizations(tx, named=str(organization_id)):
                    raise Refusal.not_found("organization", str(organization_id))
                presets = await list_pools(tx, organization_id, wanted, after=after, limit=step)
                views = await self.look(tx, presets)
            yield views
            if len(views) < step:
                return
            after = views[-1].order

    async def look(self, tx: Transaction, presets: Sequence[PresetRow]) -> list[PoolView]:
        """Look at some hundred pools."""
        facts = await self._read(tx, presets)
        views = [self._view(preset, facts) for preset in presets]
        doomed = [
            view.preset.preset_id for view in views if any(isinstance(action, Delete) for action in view.plan.actions)
        ]
        if not doomed:
            return views
        prebuilds = await read_prebuilds(tx, doomed)

        def named(view: PoolView) -> PoolView:
            own = prebuilds.get(view.preset.preset_id, ())
            planned = name_deletions(view.plan, _policy_of(view.preset), own, view.at)
            return replace(view, plan=planned)

        return [named(view) for view in views]

    async def plan_at(self, tx: Transaction, preset: PresetRow, at: datetime | None) -> PoolView:
        """Plan one pool as if it were not paused: the prebuilds of now, at that moment, or now where none is given."""
        facts = await self._read(tx, [preset])
        own = (await read_prebuilds(tx, [preset.preset_id])).get(preset.preset_id, ())
        policy = _policy_of(preset)
        if at is not None:
            counts = {preset.preset_id: count(policy, own, at)}
            facts = replace(facts, at=at, counts=counts, histories=await self._histories(tx, [preset.preset_id], at))
        view = self._view(preset, facts, is_dry_run=True)
        return replace(view, plan=name_deletions(view.plan, policy, own, view.at))

    async def _read(self, tx: Transaction, presets: Sequence[PresetRow]) -> _Facts:
        moment = await read_moment(tx)
        ids = [preset.preset_id for preset in presets]
        histories = await self._histories(tx, ids)
        template_ids = sorted({preset.template_id for preset in presets})
        bounded = sorted({preset.template_id for preset in presets if preset.max_starting is not None})
        limited = [preset.preset_id for preset in presets if preset.has_allowance]
        pauses = await read_pauses(tx, template_ids=template_ids, preset_ids=ids)
        return _Facts(
            at=moment.at,
            counts=await count_prebuilds(tx, ids),
            histories=histories,
            faults=await last_faults(tx, [each.preset_id for each in presets if self._is_limited(each, histories)]),
            starting=await count_starting(tx, bounded) if bounded else {},
            filling_since=await read_filling_since(tx, bounded) if bounded else {},
            waiting=await count_waiting(tx, ids),
            pauses={pause.target_id: pause for pause in pauses},
            quotas=await read_quotas(tx, limited) if limited else {},
        )

    def _is_limited(self, preset: PresetRow, histories: Mapping[PresetId, History]) -> bool:
        history = histories.get(preset.preset_id, _NO_HISTORY)
        return preset.status is PresetStatus.HARD_LIMITED or reaches_hard_limit(history, self._config)

    async def _histories(
        self, tx: Transaction, preset_ids: Sequence[PresetId], at: datetime | None = None
    ) -> Mapping[PresetId, History]:
        limit = max(self._config.hard_limit, 1)
        return await read_histories(tx, preset_ids, lookback=self._lookback, hard_limit=limit, at=at)

    def _view(self, preset: PresetRow, facts: _Facts, *, is_dry_run: bool = False) -> PoolView:
        policy = _policy_of(preset)
        counts = facts.counts.get(preset.preset_id, _NOTHING)
        history = facts.histories.get(preset.preset_id, _NO_HISTORY)
        planned = plan(
            policy,
            counts,
            history,
            facts.at,
            self._config,
            template_starting=facts.starting.get(preset.template_id, 0),
            quota=facts.quotas.get(preset.preset_id),
        )
        pauses = facts.pauses_of(preset)
        return PoolView(
            preset=preset,
            counts=counts,
            # No pass touches what is paused.
            plan=replace(planned, actions=()) if pauses and not is_dry_run else planned,
            can_skip=can_skip(policy, counts),
            next_change=next_change_after(policy.wish, facts.at, is_active=policy.is_active),
            blocks=(*_blocks(preset, planned, history, facts, is_dry_run=is_dry_run), *map(_block_of, pauses)),
            waiting=facts.waiting.get(preset.preset_id, 0),
            error=policy.wish.error,
            at=facts.at,
        )


def _policy_of(preset: PresetRow) -> Policy:
    """What a preset says; the passes remember what they compiled and say in the log what is wrong with it."""
    return policy_of(preset, wish_of(preset))


def _blocks(
    preset: PresetRow, planned: Plan, history: History, facts: _Facts, *, is_dry_run: bool
) -> Iterator[BlockView]:
    """What the plan says, with times that stay the same from one look to the next.

    What only the next pass will meet is left out, but in a dry run: where nothing is starting `max_starting` blocks
    nothing so far, and since when there is no quota a pass puts on record.
    """
    for block in planned.blocks:
        until, detail = None, ""
        match block:
            case Block.BACKING_OFF:
                since = history.last_failed_at
                until = next((action.until for action in planned.actions if isinstance(action, BackOff)), None)
            case Block.HARD_LIMITED:
                is_on_record = preset.status is PresetStatus.HARD_LIMITED
                since = preset.status_since if is_on_record else history.newest_at
                # What is on record is why it became so: a retry may have failed for another reason.
                detail = facts.faults.get(preset.preset_id, preset.status_message)
            case Block.VALIDATION_FAILED:
                since, detail = preset.status_since, preset.status_message
            case Block.MAX_STARTING:
                since = facts.filling_since.get(preset.template_id)
            case Block.OVER_QUOTA:
                since = preset.over_quota_since
            case _:
                assert_never(block)
        if since is None and is_dry_run:
            since = facts.at
        if since is not None:
            yield BlockView(BlockKind(block.value), since, until, detail)


def _block_of(pause: Pause) -> BlockView:
    return BlockView(BlockKind.PAUSED, pause.created_at, pause=pause)
