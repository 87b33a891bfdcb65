"""What the gateway measures (behaviour section 10); a scrape costs no query."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from prebuilds.agent_gateway.queries.handovers import Unacknowledged, count_unacknowledged
from prebuilds.store.database import Database
from prebuilds.store.handover.moves import Acknowledgement


class GatewayMetrics:
    """The instruments of one gateway process."""

    def __init__(self, meter: Meter, *, streams: Callable[[], int]) -> None:
        """`streams` counts the streams that are held."""
        self._unacknowledged: Sequence[Unacknowledged] = ()
        self._handover = meter.create_histogram(
            "prebuilds_handover_duration_seconds",
            unit="s",
            description="From a claim's commit to its acknowledgement by the agents.",
        )
        self._alternations = meter.create_counter(
            "prebuilds_incarnation_alternations_total",
            description="Times that an agent was taken back by a process that had begun before: two live by one token.",
        )
        meter.create_observable_gauge(
            "prebuilds_agent_streams",
            [lambda _: [Observation(streams())]],
            description="Streams of agents that this process holds.",
        )
        meter.create_observable_gauge(
            "prebuilds_unacknowledged_handovers",
            [self._observe_unacknowledged],
            description="Handovers due for more than 60 s without an acknowledgement, the same on every replica.",
        )

    def handover_acknowledged(self, acknowledgement: Acknowledgement) -> None:
        """Measure a handover."""
        labels = {
            "organization": acknowledgement.organization,
            "template": acknowledgement.template,
            "preset": acknowledgement.preset,
        }
        self._handover.record(acknowledgement.took.total_seconds(), labels)

    def incarnation_alternated(self) -> None:
        """Count one."""
        self._alternations.add(1)

    async def refresh_once(self, database: Database) -> None:
        """Read in the background what a scrape then shows."""
        self._unacknowledged = await count_unacknowledged(database)

    def _observe_unacknowledged(self, _: CallbackOptions) -> list[Observation]:
        return [
            Observation(
                pool.handovers, {"organization": pool.organization, "template": pool.template, "preset": pool.preset}
            )
            for pool in self._unacknowledged
        ]
