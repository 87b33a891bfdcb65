"""Hints: which pools somebody should look at soon. They are gathered, never acted upon one by one."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Final

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.loops import Wakeups
from prebuilds.domain.ids import PresetId
from prebuilds.reconciler.queries.pools import Extent

HELD_AGAIN_AFTER: Final = (timedelta(milliseconds=20), timedelta(milliseconds=200))
"""When a preset that another replica held is tried again: anywhere between these."""

REFUSED_AGAIN_AFTER: Final = (timedelta(milliseconds=500), timedelta(seconds=2))
"""When a preset whose work was refused for something that passes is tried again: anywhere between these."""


class Hints:
    """Pools that are dirty; a hint that comes while its pool is worked on makes it dirty again."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Nothing is dirty at first."""
        self.wakeups: Final = Wakeups(clock or SystemClock())
        """Woken whenever something becomes dirty."""
        self._dirty = Extent()

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
        self._add_later(preset_id, HELD_AGAIN_AFTER)

    def add_refused(self, preset_id: PresetId) -> None:
        """Make a pool dirty whose work was refused for something that passes, later: it may take a moment."""
        self._add_later(preset_id, REFUSED_AGAIN_AFTER)

    def take(self) -> Extent:
        """Take all that are dirty."""
        dirty, self._dirty = self._dirty, Extent()
        return dirty

    def _add_later(self, preset_id: PresetId, between: tuple[timedelta, timedelta]) -> None:
        earliest, latest = (each.total_seconds() for each in between)
        pause = random.uniform(earliest, latest)  # noqa: S311 - jitter
        asyncio.get_running_loop().call_later(pause, self.add, Extent(preset_ids=frozenset({preset_id})))
