"""Pools as people see them: state, target and where it comes from, plan, and what blocks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from prebuilds.domain.ids import PresetId
from prebuilds.reconciler.queries.pools import (
    Extent,
    Moment,
    PresetRow,
    count_starting,
    count_waiting,
    find_pools,
    read_histories,
    read_moment,
    read_prebuilds,
    read_presets,
)
from prebuilds.reconciler.rules.planner import BackOff, Block, Config, Plan, name_deletions, plan
from prebuilds.reconciler.rules.state import Counts, History, count
from prebuilds.reconciler.rules.target import NextChange, next_change_after
from prebuilds.reconciler.wishes import Wishes
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction

_NO_HISTORY: Final = History()


class BlockKind(StrEnum):
    """What keeps a pool from its target, the pause included."""

    BACKING_OFF = "backing_off"
    HARD_LIMITED = "hard_limited"
    VALIDATION_FAILED = "validation_failed"
    MAX_STARTING = "max_starting"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class BlockView:
    """One thing that keeps a pool from its target, and since when."""

    kind: BlockKind
    since: datetime
    until: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool at one moment."""

    preset: PresetRow
    counts: Counts
    plan: Plan
    next_change: NextChange | None
    blocks: Sequence[BlockView]
    waiting: int
    error: str
    at: datetime


class Inspector:
    """Reads pools for people, with the same statements and rules as a pass."""

    def __init__(self, database: Database, *, config: Config, lookback: timedelta) -> None:
        """`config` and `lookback` are those of the passes."""
        self._database = database
        self._config = config
        self._lookback = lookback
        self._wishes = Wishes()

    async def list_presets(self, extent: Extent) -> list[PresetRow]:
        """The presets with a pool, by template, then name, then version, newest version first."""
        async with self._database.read("list pools", snapshot=True) as tx:
            rows = await read_presets(tx, await find_pools(tx, extent))
        return sorted(rows, key=order_of)

    async def look(self, presets: Sequence[PresetRow]) -> list[PoolView]:
        """Look at a few pools one by one."""
        ids = [preset.preset_id for preset in presets]
        async with self._database.read("inspect pools", snapshot=True) as tx:
            moment = await read_moment(tx)
            prebuilds = await read_prebuilds(tx, ids)
            histories = await read_histories(
                tx, ids, lookback=self._lookback, hard_limit=max(self._config.hard_limit, 1)
            )
            waiting = await count_waiting(tx, ids)
            starting = await count_starting(tx, sorted({preset.template_id for preset in presets}))
        views: list[PoolView] = []
        for preset in presets:
            policy = self._wishes.policy_of(preset)
            own = prebuilds.get(preset.preset_id, ())
            counts = count(policy, own, moment.at)
            history = histories.get(preset.preset_id, _NO_HISTORY)
            planned = plan(
                policy,
                counts,
                history,
                moment.at,
                self._config,
                template_starting=starting.get(preset.template_id, 0),
            )
            views.append(
                PoolView(
                    preset=preset,
                    counts=counts,
                    plan=name_deletions(planned, policy, own, moment.at),
                    next_change=next_change_after(policy.wish, moment.at, is_active=policy.is_active),
                    blocks=_blocks(preset, planned, history, moment),
                    waiting=waiting.get(preset.preset_id, 0),
                    error=policy.wish.error,
                    at=moment.at,
                )
            )
        return views

    async def find(self, preset_id: PresetId) -> PresetRow | None:
        """The preset, if it asks for prebuilds."""
        async with self._database.read("find pool") as tx:
            return await _pool(tx, preset_id)


def order_of(preset: PresetRow) -> tuple[str, str, str]:
    """Where a pool stands in a list."""
    return (preset.template_name, preset.preset_name, str(preset.preset_id))


async def _pool(tx: Transaction, preset_id: PresetId) -> PresetRow | None:
    found = [preset for preset in await read_presets(tx, [preset_id]) if preset.desired_instances is not None]
    return found[0] if found else None


def _blocks(preset: PresetRow, planned: Plan, history: History, moment: Moment) -> Sequence[BlockView]:
    since: Mapping[Block, datetime | None] = {
        Block.BACKING_OFF: history.last_failed_at,
        Block.HARD_LIMITED: preset.status_since,
        Block.VALIDATION_FAILED: preset.status_since,
        Block.MAX_STARTING: moment.at,
    }
    until = next((action.until for action in planned.actions if isinstance(action, BackOff)), None)
    blocks = [
        BlockView(
            BlockKind(block.value),
            since[block] or moment.at,
            until if block is Block.BACKING_OFF else None,
            preset.status_message if block in {Block.HARD_LIMITED, Block.VALIDATION_FAILED} else "",
        )
        for block in planned.blocks
    ]
    if preset.paused_at is not None or moment.is_paused:
        blocks.append(BlockView(BlockKind.PAUSED, preset.paused_at or moment.at))
    return blocks
