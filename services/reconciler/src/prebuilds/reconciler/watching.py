"""Watching pools: first all that match, then those that change.

Nothing is authoritative here but Postgres. All who watch an organisation share its looks: whoever finds the last look
too old takes the next one, the others wait for it. A look goes through all of the organisation's pools; after one that
took long the pause is longer, so that to watch one takes at most a tenth of a processor. Between looks nothing is
held but what the last one saw, and that only while somebody watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.reconciler.inspecting import Inspector, PoolFilter, PoolView
from prebuilds.reconciler.queries.filters import PoolConditions

LOOKED_AGAIN_AFTER: Final = timedelta(seconds=1)
MAX_SHARE: Final = 0.1
"""Largest part of the time that is spent on looking."""
MAX_POOLS: Final = 500
"""Most pools in one message, and in one snapshot."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is new since the change before."""

    pools: list[PoolView]
    removed: list[PresetId]
    is_complete: bool
    """Whether every pool that matches has been told once."""


@dataclass(frozen=True, slots=True)
class Look:
    """All pools of an organisation; one that is as it was is the very object of the look before."""

    pools: Mapping[PresetId, PoolView]
    at: Mapping[PresetId, datetime]
    """When each was seen so last."""
    good_until: float
    """By the clock's monotonic time."""


@dataclass(slots=True)
class _Shared:
    watchers: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    last: Look | None = None


class Watching:
    """Looks at the pools of organisations for as long as somebody watches."""

    def __init__(self, inspector: Inspector, *, clock: Clock | None = None) -> None:
        """Look through this inspector."""
        self._inspector = inspector
        self._clock = clock or SystemClock()
        self._shared: dict[OrganizationId, _Shared] = {}

    async def watch(self, organization_id: OrganizationId, wanted: PoolFilter) -> AsyncGenerator[Change]:
        """Tell the pools of an organisation for as long as somebody listens."""
        seen: Mapping[PresetId, PoolView] = {}
        told: set[PresetId] = set()
        is_complete = False
        with self._watching(organization_id) as shared:
            while True:
                look = await self._look(organization_id, shared)
                changed, removed = list[PoolView](), [id_ for id_ in told if id_ not in look.pools]
                for id_, view in look.pools.items():
                    if seen.get(id_) is view:
                        continue
                    if wanted.admits(view):
                        changed.append(replace(view, at=look.at[id_]))
                    elif id_ in told:
                        removed.append(id_)
                seen = look.pools
                told = told.difference(removed).union(view.preset.preset_id for view in changed)
                while len(changed) > MAX_POOLS:
                    yield Change(changed[:MAX_POOLS], [], is_complete)
                    changed = changed[MAX_POOLS:]
                if changed or removed or not is_complete:
                    is_complete = True
                    yield Change(changed, removed, is_complete)
                await self._clock.sleep(max(look.good_until - self._clock.monotonic(), 0))

    async def _look(self, organization_id: OrganizationId, shared: _Shared) -> Look:
        """The present look: the last one while it is good, else a new one."""
        async with shared.turn:
            last = shared.last
            if last is not None and self._clock.monotonic() < last.good_until:
                return last
            known: Mapping[PresetId, PoolView] = {} if last is None else last.pools
            began = self._clock.monotonic()
            pools: dict[PresetId, PoolView] = {}
            at: dict[PresetId, datetime] = {}
            async with aclosing(self._inspector.walk(organization_id, PoolConditions(), step=MAX_POOLS)) as lots:
                async for views in lots:
                    for view in views:
                        id_ = view.preset.preset_id
                        before = known.get(id_, view)
                        pools[id_] = before if replace(view, at=before.at) == before else view
                        at[id_] = view.at
            now = self._clock.monotonic()
            pause = max(LOOKED_AGAIN_AFTER.total_seconds(), (now - began) * (1 / MAX_SHARE - 1))
            shared.last = Look(pools, at, now + pause)
            return shared.last

    @contextmanager
    def _watching(self, organization_id: OrganizationId) -> Generator[_Shared]:
        shared = self._shared.setdefault(organization_id, _Shared())
        shared.watchers += 1
        try:
            yield shared
        finally:
            shared.watchers -= 1
            if shared.watchers == 0:
                del self._shared[organization_id]
