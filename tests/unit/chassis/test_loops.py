"""Loops: woken or due they run, failing they go on, cancelled they end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from structlog.testing import capture_logs

from prebuilds.chassis.loops import Wakeups, run_loop
from tests.support.clock import ManualClock

INTERVAL = timedelta(seconds=60)


@dataclass(frozen=True)
class Outcome:
    deleted: int


class Runs:
    """Counts runs; each can be awaited."""

    def __init__(self, fails: bool = False) -> None:
        self.count = 0
        self.fails = fails
        self._changed = asyncio.Condition()

    async def once(self) -> Outcome:
        async with self._changed:
            self.count += 1
            self._changed.notify_all()
        if self.fails:
            raise RuntimeError("boom")
        return Outcome(deleted=self.count)

    async def reached(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.count >= count)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_loop_runs_at_once_and_again_after_its_interval() -> None:
    clock, runs = ManualClock(), Runs()
    loop = asyncio.ensure_future(run_loop("l", runs.once, interval=INTERVAL, wakeups=Wakeups(clock), clock=clock))
    await runs.reached(1)
    await clock.until_somebody_sleeps()
    clock.advance(INTERVAL)
    await runs.reached(2)
    await stop(loop)


async def test_a_wake_up_makes_it_run_before_its_interval() -> None:
    clock, runs = ManualClock(), Runs()
    wakeups = Wakeups(clock)
    loop = asyncio.ensure_future(run_loop("l", runs.once, interval=INTERVAL, wakeups=wakeups, clock=clock))
    await clock.until_somebody_sleeps()
    wakeups.wake()
    wakeups.wake()
    await runs.reached(2)
    await clock.until_somebody_sleeps()
    assert runs.count == 2, "several wake-ups between two runs are one"
    await stop(loop)


async def test_a_wake_up_during_a_run_is_not_lost() -> None:
    clock = ManualClock()
    wakeups = Wakeups(clock)
    runs = Runs()

    async def wakes_itself_once() -> None:
        await runs.once()
        if runs.count == 1:
            wakeups.wake()

    loop = asyncio.ensure_future(run_loop("l", wakes_itself_once, interval=INTERVAL, wakeups=wakeups, clock=clock))
    await runs.reached(2)
    await stop(loop)


async def test_a_failing_run_is_logged_and_the_loop_goes_on() -> None:
    clock, runs = ManualClock(), Runs(fails=True)
    with capture_logs() as lines:
        loop = asyncio.ensure_future(run_loop("l", runs.once, interval=INTERVAL, wakeups=Wakeups(clock), clock=clock))
        await clock.until_somebody_sleeps()
        clock.advance(INTERVAL)
        await runs.reached(2)
        await stop(loop)
    assert {line["event"] for line in lines} == {"loop failed"}


async def test_what_a_run_answers_is_one_line() -> None:
    clock, runs = ManualClock(), Runs()
    with capture_logs() as lines:
        loop = asyncio.ensure_future(run_loop("l", runs.once, interval=INTERVAL, wakeups=Wakeups(clock), clock=clock))
        await clock.until_somebody_sleeps()
        await stop(loop)
    assert [(line["event"], line["loop"], line["deleted"]) for line in lines] == [("loop ran", "l", 1)]


async def test_a_cancellation_that_a_run_swallows_still_ends_the_loop() -> None:
    begun = asyncio.Event()
    swallowed = 0

    async def swallow() -> None:
        nonlocal swallowed
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1

    loop = asyncio.ensure_future(run_loop("l", swallow, interval=timedelta(0), wakeups=Wakeups()))
    await begun.wait()
    await stop(loop)
    assert swallowed == 1
