"""Hints: which pools somebody should look at soon. They are gathered, never acted upon one by one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.loops import Wakeups
from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.reconciler.queries.pools import Extent

HELD_AGAIN_AFTER: Final = (timedelta(milliseconds=20), timedelta(milliseconds=200))
"""When a preset or a quota that another replica held is tried again: anywhere between these."""

REFUSED_AGAIN_AFTER: Final = (timedelta(milliseconds=500), timedelta(seconds=2))
"""When a preset whose work was refused for something that passes is tried again: anywhere between these."""


class Hints:
    """Pools that are dirty, or will be; a hint that comes while its pool is worked on makes it dirty again."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Nothing is dirty at first."""
        self.wakeups: Final = Wakeups(clock or SystemClock())
        """Woken whenever something becomes dirty."""
        self._dirty = Extent()
        self._later: dict[UUID | datetime, Extent] = {}
        """What becomes dirty later, by what it waits for: each has one timer, however many pools wait for it."""

    def add(self, extent: Extent) -> None:
        """Make these pools dirty."""
        if extent:
            self._dirty |= extent
            self.wakeups.wake()

    def put_back(self, extent: Extent) -> None:
        """Make these pools dirty again without waking anybody: their pass failed, the next one takes them."""
        self._dirty |= extent

    def add_held(self, preset_id: PresetId) -> None:
        """Make a pool dirty that somebody else held, a little later."""
        self._add_later(preset_id, [preset_id], _between(HELD_AGAIN_AFTER))

    def add_quota_held(self, organization_id: OrganizationId, preset_ids: Iterable[PresetId]) -> None:
        """Make the pools dirty that wait for a quota that somebody else held, a little later and all at once."""
        self._add_later(organization_id, preset_ids, _between(HELD_AGAIN_AFTER))

    def add_refused(self, preset_id: PresetId) -> None:
        """Make a pool dirty whose work was refused for something that passes, later: it may take a moment."""
        self._add_later(preset_id, [preset_id], _between(REFUSED_AGAIN_AFTER))

    def add_change(self, at: datetime, preset_ids: Iterable[PresetId], *, after: timedelta) -> None:
        """Make pools dirty at the moment at which what is wanted of them changes by itself, so long from now."""
        self._add_later(at, preset_ids, after)

    def take(self) -> Extent:
        """Take all that are dirty."""
        dirty, self._dirty = self._dirty, Extent()
        return dirty

    def _add_later(self, cause: UUID | datetime, preset_ids: Iterable[PresetId], after: timedelta) -> None:
        if cause not in self._later:
            self._later[cause] = Extent()
            asyncio.get_running_loop().call_later(after.total_seconds(), self._fall_due, cause)
        self._later[cause] |= Extent(preset_ids=frozenset(preset_ids))

    def _fall_due(self, cause: UUID | datetime) -> None:
        self.add(self._later.pop(cause))


def _between(bounds: tuple[timedelta, timedelta]) -> timedelta:
    earliest, latest = bounds
    return earliest + (latest - earliest) * random.random()  # noqa: S311 - jitter
