"""Retention: failed and canceled prebuilds are kept for inspection, then removed (behaviour section 5).

A loop of its own, no part of any pass or plan, over active and inactive presets, paused ones too: a pause keeps passes
away, and what failed to be deleted would cost money for as long as it lasts. Postgres is authoritative, nothing is
remembered between runs but compiled schedules. A run

1. *reads*, in one repeatable-read transaction of three statements, what has ended of all pools;
2. *decides* by the pure rule what is to go now;
3. *removes*, each pool in a transaction of its own: lock its preset (passing over what a pass or another replica
   holds), then the pool rows and workspaces of what is to go, read again in later statements, decide again, act on what
   both decisions name.

What a daemon has had a job of gets a delete build, which also repeats those that failed; of what none ever had there is
nothing to destroy, and it is removed at once. Build rows stay, so failures go on counting for backoff and hard limit.

Crash before a pool's commit: nothing happened to it. After it: the delete build is queued, or the workspace gone. A
prebuild that somebody starts or claims meanwhile is not ended any more when it is looked at under its lock.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from prebuilds.domain.builds import BuildReason
from prebuilds.domain.ids import PresetId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.reconciler.queries.ended import read_ended
from prebuilds.reconciler.queries.pools import Moment, PresetRow, lock_preset, read_moment, read_presets
from prebuilds.reconciler.rules.retention import Ended, Removal, RemovalReason, what_to_remove
from prebuilds.reconciler.rules.target import target_at
from prebuilds.reconciler.wishes import Wishes
from prebuilds.store.database import Database
from prebuilds.store.pool.endings import remove_unbuilt
from prebuilds.store.pool.filling import mark_deleting
from prebuilds.store.pool.locks import lock_prebuilds, lock_workspaces
from prebuilds.store.transactions import Transaction

INTERVAL: Final = timedelta(minutes=1)

MOST_POOLS: Final = 500
"""Pools worked on in one run; the others are found again by the next."""

MOST_OF_A_POOL: Final = 200
"""Prebuilds removed of one pool in one run, the oldest."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Retained:
    """What one run did, or what was done to one pool; false where nothing was due."""

    deleted: int = 0
    """Delete builds queued for the first time."""
    retried: int = 0
    """Delete builds queued again."""
    unbuilt: int = 0
    """Removed without a build."""
    held_elsewhere: int = 0
    """Pools passed over."""
    failed: int = 0
    """Pools whose work failed; the next run finds them again."""

    def __bool__(self) -> bool:
        """Whether anything was due."""
        return self != Retained()

    def __add__(self, other: Retained) -> Retained:
        """Give what both did."""
        return Retained(
            self.deleted + other.deleted,
            self.retried + other.retried,
            self.unbuilt + other.unbuilt,
            self.held_elsewhere + other.held_elsewhere,
            self.failed + other.failed,
        )


class Retention:
    """Removes what was kept long enough."""

    def __init__(self, database: Database, *, keep_for: timedelta) -> None:
        """`keep_for` is how long what failed is kept, 0 or more."""
        self._database = database
        self._keep_for = keep_for
        self._wishes = Wishes()

    async def run_once(self) -> Retained:
        """Go once over all pools; a failure of one is logged and counted, and stops no other."""
        due = await self._find_due()
        # In an order of its own, so that replicas begin at different pools and none waits behind others for ever.
        chosen = random.sample(sorted(due), min(len(due), MOST_POOLS))
        return sum([await self._work_on(preset_id, due[preset_id]) for preset_id in chosen], Retained())

    async def _find_due(self) -> Mapping[PresetId, Sequence[WorkspaceId]]:
        async with self._database.read("find ended prebuilds", snapshot=True) as tx:
            moment = await read_moment(tx)
            ended = await read_ended(tx)
            presets = await read_presets(tx, sorted(ended)) if ended else ()
        self._wishes.forget_all_but(ended)
        decided = {preset.preset_id: self._decide(preset, ended[preset.preset_id], moment) for preset in presets}
        return {
            preset_id: [removal.workspace_id for removal in removals]
            for preset_id, removals in decided.items()
            if removals
        }

    def _decide(self, preset: PresetRow, ended: Sequence[Ended], moment: Moment) -> Sequence[Removal]:
        policy = self._wishes.policy_of(preset)
        desired = target_at(policy.wish, moment.at, is_active=policy.is_active).instances
        return what_to_remove(ended, desired, moment.at, keep_for=self._keep_for)[:MOST_OF_A_POOL]

    async def _work_on(self, preset_id: PresetId, due: Sequence[WorkspaceId]) -> Retained:
        try:
            return await self._database.run("retention", partial(self._remove, preset_id=preset_id, due=due))
        except Exception:  # noqa: BLE001 - a loop's body: one pool's failure never stops the others
            _log.exception("ended prebuilds were not removed", preset_id=preset_id)
            return Retained(failed=1)

    async def _remove(self, tx: Transaction, *, preset_id: PresetId, due: Sequence[WorkspaceId]) -> Retained:
        """Lock the preset, then pool rows and workspaces, then what a delete build locks."""
        if not await lock_preset(tx, preset_id):
            return Retained(held_elsewhere=1)
        locked = await lock_prebuilds(tx, due)
        await lock_workspaces(tx, sorted(locked))
        # Later statements than the locks: they see what whoever held them before has committed.
        moment = await read_moment(tx)
        ended = (await read_ended(tx, [preset_id])).get(preset_id, ())
        presets = await read_presets(tx, [preset_id])
        if not presets or not ended:
            return Retained()
        preset = presets[0]
        removals = [each for each in self._decide(preset, ended, moment) if each.workspace_id in locked]
        return await self._act(tx, preset, removals)

    @staticmethod
    async def _act(tx: Transaction, preset: PresetRow, removals: Sequence[Removal]) -> Retained:
        deleted = retried = unbuilt = 0
        for reason in RemovalReason:
            concerned = [each.workspace_id for each in removals if each.reason is reason]
            if not concerned:
                continue
            gone = await remove_unbuilt(tx, preset.key, concerned, reason=reason.value)
            queued = await mark_deleting(
                tx,
                preset.key,
                [each for each in concerned if each not in gone],
                kind=PoolEventKind.DELETED,
                reason=reason.value,
                build_reason=BuildReason.RETENTION,
            )
            unbuilt += len(gone)
            if reason in {RemovalReason.DELETE_FAILED, RemovalReason.MARKED}:
                retried += len(queued)
            else:
                deleted += len(queued)
            _log.info(
                "ended prebuilds removed",
                preset_id=preset.preset_id,
                preset=preset.preset_name,
                template=preset.template_name,
                reason=reason,
                queued=len(queued),
                unbuilt=len(gone),
            )
        return Retained(deleted, retried, unbuilt)
