"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class ManualClock:
    """Satisfies `prebuilds.chassis.clock.Clock`; sleepers wake only through `advance`."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._asleep = asyncio.Event()

    def now(self) -> datetime:
        return self._now + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        wakes: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleeper = (self._elapsed + seconds, wakes)
        self._sleepers.append(sleeper)
        self._asleep.set()
        try:
            await wakes
        finally:
            self._sleepers.remove(sleeper)
            if not self._sleepers:
                self._asleep.clear()

    def advance(self, by: timedelta) -> None:
        """Move time on and wake whoever has slept long enough."""
        self._elapsed += by.total_seconds()
        for until, wakes in tuple(self._sleepers):
            if until <= self._elapsed and not wakes.done():
                wakes.set_result(None)

    async def until_somebody_sleeps(self) -> None:
        """Wait until a task is asleep on this clock: the point at which moving it has an effect."""
        await self._asleep.wait()
