"""Loops: run once, say in one line what came of it, wait for a wake-up or the interval, begin again.

A loop is level-triggered: a wake-up says only "look again", so any number of them between two runs are one. A wake-up
that comes while a run is under way makes the next run follow at once. A run that fails is logged and counted and the
loop goes on after its interval; only cancellation ends it, at once and wherever it waits.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import structlog
from opentelemetry.metrics import Meter

from prebuilds.chassis.cancellation import heed_cancellation
from prebuilds.chassis.clock import Clock, SystemClock

_log = structlog.get_logger(__name__)


class Wakeups:
    """A wake-up source: any part of the process calls `wake`, one loop waits."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Nothing is pending at first."""
        self._event = asyncio.Event()
        self._clock = clock or SystemClock()

    def wake(self) -> None:
        """Make the loop look again: now if it waits, after its present run if it runs."""
        self._event.set()

    async def wait(self, interval: timedelta) -> bool:
        """Wait for a wake-up, at most `interval`; whether one came. Takes all that are pending."""
        if not self._event.is_set():
            woken = asyncio.ensure_future(self._event.wait())
            timer = asyncio.ensure_future(self._clock.sleep(interval.total_seconds()))
            try:
                await asyncio.wait({woken, timer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
                timer.cancel()
        was_woken = self._event.is_set()
        self._event.clear()
        return was_woken


class LoopMetrics:
    """Counts the runs of all loops of a process."""

    def __init__(self, meter: Meter) -> None:
        """Make the one counter."""
        self._runs = meter.create_counter("prebuilds_loop_runs_total", description="Runs of a loop, by how they ended.")

    def count(self, loop: str, outcome: str) -> None:
        """Count one run."""
        self._runs.add(1, {"loop": loop, "outcome": outcome})


async def run_loop(
    name: str,
    run_once: Callable[[], Awaitable[object]],
    *,
    interval: timedelta,
    wakeups: Wakeups,
    metrics: LoopMetrics | None = None,
    clock: Clock | None = None,
) -> None:
    """Run for ever. What `run_once` returns is logged in one line: at info, or at debug where it is falsy."""
    timer = clock or SystemClock()
    while True:
        started = timer.monotonic()
        outcome = "succeeded"
        try:
            result = await run_once()
        except Exception:  # noqa: BLE001 - a loop outlives its runs
            outcome = "failed"
            _log.exception("loop failed", loop=name)
        else:
            say = _log.info if result else _log.debug
            say("loop ran", loop=name, seconds=round(timer.monotonic() - started, 4), **_fields(result))
        if metrics is not None:
            metrics.count(name, outcome)
        heed_cancellation()
        await wakeups.wait(interval)


def _fields(result: object) -> dict[str, Any]:
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {} if result is None else {"result": result}
