"""Hints that something was queued: they end the pause of every long poll."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from prebuilds.events.bodies import Hint


class QueueHints:
    """Wakes all who wait. Who looks before waiting passes on the count it saw, so that no hint falls in between."""

    def __init__(self) -> None:
        """None so far; must be made inside a running loop."""
        self._count = 0
        self._next: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def count(self) -> int:
        """How many hints have come."""
        return self._count

    async def hear(self, _: Hint) -> None:
        """Take a hint from the event bus."""
        await self.look_again()

    async def look_again(self) -> None:
        """Wake everybody: something was queued, or the consumer was made anew and hints may have been missed."""
        self._count += 1
        self._next.set_result(None)
        self._next = asyncio.get_running_loop().create_future()

    async def after(self, seen: int, draining: asyncio.Event, timeout: timedelta) -> None:
        """Wait for a hint beyond `seen`, for the drain, or for the time to pass."""
        if self._count != seen or draining.is_set():
            return
        drain = asyncio.ensure_future(draining.wait())
        try:
            await asyncio.wait(
                {drain, self._next}, timeout=timeout.total_seconds(), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            drain.cancel()
