"""Background tasks with an owner: who opens the group awaits every task in it and sees the first failure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import NoReturn, Self, TypeVar

import structlog

_log = structlog.get_logger(__name__)
T = TypeVar("T")


class BackgroundTasks:
    """The tasks of one app: `async with BackgroundTasks() as tasks`, and at its end all are cancelled and awaited.

    Unlike `asyncio.TaskGroup` a failure does not cancel the body from outside: `failed()` raises it where the owner
    waits, so that a server still drains in good order before the process ends non-zero.
    """

    def __init__(self) -> None:
        """Must be made inside a running loop."""
        self._tasks: set[asyncio.Task[object]] = set()
        self._failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._surfaced = False
        self._closed = False

    def spawn(self, name: str, coroutine: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run the coroutine until it ends or the group closes; its failure is logged and surfaces in `failed`."""
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"task {name!r} was spawned after its group closed")
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def failed(self) -> NoReturn:
        """Wait until a task fails and raise what it raised; waits for ever while all goes well."""
        error = await asyncio.shield(self._failure)
        self._surfaced = True
        raise error

    async def __aenter__(self) -> Self:
        """Enter the group."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel and await all; a failure that nobody has seen yet is raised here, unless the body failed itself."""
        self._closed = True
        while self._tasks:
            running = list(self._tasks)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if self._failure.done() and not self._surfaced and error is None:
            raise self._failure.result()

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        _log.error("background task failed", task=task.get_name(), exc_info=error)
        if not self._failure.done():
            self._failure.set_result(error)
