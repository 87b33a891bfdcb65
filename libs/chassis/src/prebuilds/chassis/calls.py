"""The calls that are running: what a drain waits for, and the streams that it ends.

A drain goes: `draining` is set, so that long polls and the ends of streams can see it; every stream's task is cancelled
and its caller gets UNAVAILABLE with reason DRAINING, which tells it to come again elsewhere; unary calls run to their
end. Calls of health and reflection ("observers") end last, so that a watcher still hears NOT_SERVING.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from prebuilds.domain.refusals import Reason, Refusal

Draining = asyncio.Event
"""Set once, when the process was asked to stop."""


def draining_refusal() -> Refusal:
    """The answer to a stream or long poll that a drain ends."""
    return Refusal(Reason.DRAINING, "this server is about to stop; call again")


class RunningCalls:
    """Every call between its first and its last instruction."""

    def __init__(self) -> None:
        """None at first."""
        self._unary: Final[set[asyncio.Task[object]]] = set()
        self._streams: Final[set[asyncio.Task[object]]] = set()
        self._observers: Final[set[asyncio.Task[object]]] = set()
        self._ended: Final[set[asyncio.Task[object]]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    def __len__(self) -> int:
        """How many calls run, observers aside."""
        return len(self._unary) + len(self._streams)

    def begin(self, *, is_stream: bool) -> asyncio.Task[object]:
        """Enter the present task; a stream that begins during a drain ends at once."""
        task = _present_task()
        if is_stream:
            self._streams.add(task)
            if self._closing:
                self._end(task)
        else:
            self._unary.add(task)
        self._idle.clear()
        return task

    def end(self, task: asyncio.Task[object]) -> None:
        """Leave."""
        self._unary.discard(task)
        self._streams.discard(task)
        self._ended.discard(task)
        if not self._unary and not self._streams:
            self._idle.set()

    def begin_observer(self) -> asyncio.Task[object]:
        """Enter a call of health or reflection."""
        task = _present_task()
        self._observers.add(task)
        return task

    def end_observer(self, task: asyncio.Task[object]) -> None:
        """Leave."""
        self._observers.discard(task)
        self._ended.discard(task)

    def was_ended(self, task: asyncio.Task[object]) -> bool:
        """Whether the cancellation that this task sees is the drain's; taken back if so, for an answer to be sent."""
        if task not in self._ended:
            return False
        self._ended.discard(task)
        return task.uncancel() == 0

    def end_streams(self) -> None:
        """End all streams with DRAINING, now and whenever one begins."""
        self._closing = True
        for task in tuple(self._streams):
            self._end(task)

    def end_observers(self) -> None:
        """End calls of health and reflection."""
        for task in tuple(self._observers):
            self._end(task)

    async def idle(self) -> None:
        """Wait until no call runs, observers aside."""
        await self._idle.wait()

    def _end(self, task: asyncio.Task[object]) -> None:
        self._ended.add(task)
        task.cancel()


def _present_task() -> asyncio.Task[object]:
    return cast("asyncio.Task[object]", asyncio.current_task())
