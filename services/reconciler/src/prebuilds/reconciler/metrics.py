"""What the reconciler shows of pools, for a scrape to read (behaviour section 10; docs/metrics.md).

Callbacks run in the exporters' threads, between two of which the measurement may be replaced, never changed. They show
the last one; before the first there is no series, which is better than a zero that is not true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.loops import LoopMetrics, run_loop
from prebuilds.chassis.loops import Wakeups as LoopWakeups
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.domain.pools import PoolEventKind
from prebuilds.reconciler.measuring import Measurement, Measuring
from prebuilds.reconciler.rules.figures import Figures


@dataclass(frozen=True, slots=True)
class _Counter:
    name: str
    description: str
    label: str | None = None
    """What its events are told apart by, besides the pool."""


_COUNTERS: Final[Mapping[PoolEventKind, _Counter]] = {
    PoolEventKind.CREATED: _Counter("prebuilds_created_total", "Prebuilds whose first build was queued."),
    PoolEventKind.FAILED: _Counter(
        "prebuilds_failed_total",
        "Builds of prebuilds that failed, and prebuilds that were built but dead, by whose fault it was.",
        label="class",
    ),
    PoolEventKind.CLAIMED: _Counter("prebuilds_claimed_total", "Prebuilds that were claimed."),
    PoolEventKind.MISSED: _Counter(
        "prebuilds_claim_missed_total", "Creations that no prebuild answered, by why not.", label="reason"
    ),
    PoolEventKind.EXPIRED: _Counter(
        "prebuilds_expired_total", "Prebuilds marked for deletion because they had expired or were invalidated."
    ),
    PoolEventKind.DELETED: _Counter(
        "prebuilds_deleted_total", "Prebuilds marked for deletion, or removed, for any other reason than their expiry."
    ),
    PoolEventKind.CANCELED: _Counter(
        "prebuilds_canceled_total", "Prebuilds of inactive versions that were given up before a daemon took them."
    ),
    PoolEventKind.RESOURCES_REPLACED: _Counter(
        "prebuilds_resource_replacements_total", "Claims whose build would have replaced resources of the prebuild."
    ),
}


@dataclass(frozen=True, slots=True)
class _Gauge:
    name: str
    description: str
    read: Callable[[Figures], int]
    only_if_true: bool = False
    """Whether a 0 is no series."""


_GAUGES: Final = (
    _Gauge("prebuilds_desired", "Prebuilds that the pool should have now, by its schedule.", lambda pool: pool.desired),
    _Gauge("prebuilds_running", "Prebuilds that run, expired ones included.", lambda pool: pool.running),
    _Gauge("prebuilds_eligible", "Prebuilds that can be claimed now.", lambda pool: pool.eligible),
    _Gauge("prebuilds_starting", "Prebuilds whose start is queued or being built.", lambda pool: pool.starting),
    _Gauge("prebuilds_extraneous", "Unexpired prebuilds above the target.", lambda pool: pool.extraneous),
    _Gauge("prebuilds_waiting", "People who wait for a prebuild.", lambda pool: pool.waiting),
    _Gauge(
        "prebuilds_preset_hard_limited",
        "1 where too many builds in a row failed by the template's fault, so that no more are made.",
        lambda pool: pool.is_hard_limited,
        only_if_true=True,
    ),
    _Gauge(
        "prebuilds_preset_validation_failed",
        "1 where the preset is invalid, so that no prebuilds are made.",
        lambda pool: pool.is_validation_failed,
        only_if_true=True,
    ),
)


class PoolMetrics:
    """The instruments of one reconciler process that show pools."""

    def __init__(self, measuring: Measuring, meter: Meter) -> None:
        """Show nothing yet."""
        self._measuring = measuring
        self._last: Measurement | None = None
        for kind, counter in _COUNTERS.items():
            meter.create_observable_counter(
                counter.name, [partial(self._observe_totals, kind, counter)], description=counter.description
            )
        for gauge in _GAUGES:
            meter.create_observable_gauge(
                gauge.name, [partial(self._observe_figures, gauge)], description=gauge.description
            )
        meter.create_observable_gauge(
            "prebuilds_reconciliation_paused",
            [self._observe_pauses],
            description="Without labels 1 while the whole deployment is paused, else 0; 1 for each pool paused itself.",
        )
        meter.create_observable_gauge(
            "prebuilds_metrics_last_updated_timestamp_seconds",
            [self._observe_moment],
            unit="s",
            description="The moment that the metrics of pools show, by the database's clock.",
        )

    def start(
        self,
        tasks: BackgroundTasks,
        *,
        interval: timedelta,
        metrics: LoopMetrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Refresh in these tasks, at once and then at each interval."""
        timer = clock or SystemClock()
        loop = run_loop(
            "metrics", self.refresh, interval=interval, wakeups=LoopWakeups(timer), metrics=metrics, clock=timer
        )
        tasks.spawn("metrics loop", loop)

    async def refresh(self) -> None:
        """Read what scrapes show from now on, then leave less to count for the next time."""
        self._last = await self._measuring.read()
        await self._measuring.fold()

    def _observe_totals(self, kind: PoolEventKind, counter: _Counter, _: CallbackOptions) -> Iterator[Observation]:
        last = self._last
        for happened in last.totals if last else ():
            if happened.kind is kind:
                told = {"organization": happened.organization}
                if counter.label is not None:
                    told[counter.label] = happened.label
                for (template, preset), total in happened.totals.items():
                    yield Observation(total, {**told, "template": template, "preset": preset})

    def _observe_figures(self, gauge: _Gauge, _: CallbackOptions) -> Iterator[Observation]:
        last = self._last
        for pool, figures in last.figures.items() if last else ():
            value = int(gauge.read(figures))
            if value or not gauge.only_if_true:
                yield Observation(value, pool._asdict())

    def _observe_pauses(self, _: CallbackOptions) -> Iterator[Observation]:
        last = self._last
        if last is None:
            return
        yield Observation(int(last.is_paused))
        for pool, figures in last.figures.items():
            if figures.is_paused:
                yield Observation(1, pool._asdict())

    def _observe_moment(self, _: CallbackOptions) -> Iterator[Observation]:
        if self._last is not None:  # Once there is one it is only ever replaced.
            yield Observation(self._last.at.timestamp())
