"""Background tasks are owned: none is lost, and none fails unseen."""

from __future__ import annotations

import asyncio

import pytest

from prebuilds.chassis.process import EXIT_FAILED, EXIT_OK, Process, supervise
from prebuilds.chassis.tasks import BackgroundTasks


async def boom() -> None:
    raise RuntimeError("boom")


async def for_ever(ended: asyncio.Event) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.set()


async def test_leaving_the_group_cancels_and_awaits_all() -> None:
    ended = asyncio.Event()
    async with BackgroundTasks() as tasks:
        task = tasks.spawn("for ever", for_ever(ended))
        await asyncio.sleep(0)
    assert ended.is_set()
    assert task.cancelled()


async def test_a_failure_surfaces_where_the_owner_waits() -> None:
    async with BackgroundTasks() as tasks:
        tasks.spawn("boom", boom())
        with pytest.raises(RuntimeError, match="boom"):
            await tasks.failed()


async def test_a_failure_that_nobody_waited_for_surfaces_at_the_end() -> None:
    async def body() -> None:
        async with BackgroundTasks() as tasks:
            await asyncio.wait({tasks.spawn("boom", boom())})

    with pytest.raises(RuntimeError, match="boom"):
        await body()


async def test_the_bodys_own_failure_is_not_hidden_by_a_tasks() -> None:
    async def body() -> None:
        async with BackgroundTasks() as tasks:
            await asyncio.wait({tasks.spawn("boom", boom())})
            raise ValueError("body")

    with pytest.raises(ValueError, match="body"):
        await body()


async def test_a_closed_group_takes_no_more_tasks() -> None:
    async with BackgroundTasks() as tasks:
        pass
    with pytest.raises(RuntimeError, match="after its group closed"):
        tasks.spawn("late", boom())


async def test_a_process_ends_with_0_when_asked_to_stop() -> None:
    async def main(process: Process) -> None:
        process.stop()
        await process.stopping()

    assert await supervise(main) == EXIT_OK


async def test_a_process_whose_task_fails_closes_what_it_opened_and_ends_with_1() -> None:
    closed: list[str] = []

    async def main(process: Process) -> None:
        process.spawn("boom", boom())
        try:
            await process.stopping()
        finally:
            closed.append("app")

    assert await supervise(main) == EXIT_FAILED
    assert closed == ["app"]


async def test_a_process_that_cannot_start_ends_with_1() -> None:
    async def main(process: Process) -> None:
        raise OSError("port taken")

    assert await supervise(main) == EXIT_FAILED
