"""How many connections passes use at once, and who gets one when many want it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext


class Slots:
    """Slots, taken in the order in which they are asked for; whoever has much to do never takes the last one.

    So a claimed prebuild is made up for while a pass over everything waits for whatever it waits for. A single slot is
    everybody's.
    """

    def __init__(self, total: int) -> None:
        """Have so many, 1 or more."""
        self._all = asyncio.Semaphore(total)
        self._for_much = asyncio.Semaphore(max(1, total - 1))

    @asynccontextmanager
    async def take(self, *, for_much: bool) -> AsyncGenerator[None]:
        """Hold a slot, once there is one."""
        async with self._for_much if for_much else nullcontext(), self._all:
            yield
