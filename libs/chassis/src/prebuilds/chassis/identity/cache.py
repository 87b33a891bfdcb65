"""A bounded cache of what stays true for a short time, loaded once however many ask at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from prebuilds.chassis import deadline
from prebuilds.chassis.clock import Clock

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps at most `size` values, the least recently used goes first; a failed load is not kept."""

    def __init__(self, *, size: int, clock: Clock) -> None:
        """Empty at first."""
        self._size = size
        self._clock = clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._loading: dict[K, asyncio.Task[tuple[float, V]]] = {}

    def known(self, key: K) -> V | None:
        """The value, where it is there and still true; costs no await."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= self._clock.monotonic():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[1]

    async def get(self, key: K, load: Callable[[], Awaitable[tuple[float, V]]]) -> V:
        """The value; `load` answers how many seconds it stays true, and the value itself."""
        known = self.known(key)
        if known is not None:
            return known
        task = self._loading.get(key)
        if task is None:
            # A task of its own: the caller who came first may be cancelled, the others still want the answer.
            task = asyncio.ensure_future(_load(load))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        return (await asyncio.shield(task))[1]

    def _loaded(self, key: K, task: asyncio.Task[tuple[float, V]]) -> None:
        del self._loading[key]
        # Asking for the exception marks it as seen, should every caller be gone by now.
        if task.cancelled() or task.exception() is not None:
            return
        seconds, value = task.result()
        self._kept[key] = (self._clock.monotonic() + seconds, value)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)


async def _load(load: Callable[[], Awaitable[tuple[float, V]]]) -> tuple[float, V]:
    # Others wait for it too, some of them longer than who came first.
    deadline.end_in(None)
    return await load()
