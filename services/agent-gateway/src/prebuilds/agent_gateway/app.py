"""The gateway's wiring."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import SpanProcessor

from prebuilds.agent_gateway.admitting import Admission
from prebuilds.agent_gateway.attaching import Attaching
from prebuilds.agent_gateway.manifests import Manifests
from prebuilds.agent_gateway.metrics import GatewayMetrics
from prebuilds.agent_gateway.presence import Presence
from prebuilds.agent_gateway.reporting import Reporting
from prebuilds.agent_gateway.rpc.gateway import AgentGateway
from prebuilds.agent_gateway.settings import GatewaySettings
from prebuilds.agent_gateway.streams import HeldStreams
from prebuilds.chassis.access_table import ACCESS_TABLE
from prebuilds.chassis.addresses import Addresses
from prebuilds.chassis.calls import Draining
from prebuilds.chassis.clock import SystemClock
from prebuilds.chassis.identity.authenticator import Authenticator, NobodyElse
from prebuilds.chassis.loops import LoopMetrics, Wakeups, run_loop
from prebuilds.chassis.process import App
from prebuilds.chassis.server import open_server
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.chassis.telemetry import Telemetry, current_traceparent
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.principals import ServiceName
from prebuilds.events.backbone import open_backbone
from prebuilds.events.bodies import Hint
from prebuilds.events.consumers import Subscription
from prebuilds.events.subscriptions import subscribe
from prebuilds.store.database import Database
from prebuilds.store.faults import refusal_for
from prebuilds.v1.agent_gateway_service_pb2_grpc import add_AgentGatewayServiceServicer_to_server

SERVICE: Final = ServiceName.AGENT_GATEWAY
EVENTS: Final = frozenset({EventKind.HANDOVER_DUE, EventKind.AGENT_REVOKED})
"""What makes a stream worth a look at once; everything else can wait for the check."""

_REFRESH_EVERY: Final = timedelta(seconds=5)
_COUNT_EVERY: Final = timedelta(seconds=10)
_RETRY_AFTER: Final = timedelta(seconds=1)
_UNREQUESTED_FOR: Final = 120  # seconds


@asynccontextmanager
async def open_app(
    settings: GatewaySettings,
    *,
    span_processors: Sequence[SpanProcessor] = (),
    metric_readers: Sequence[MetricReader] = (),
) -> AsyncGenerator[App]:
    """Open the gateway, serving; closing it drains. Processors and readers are for tests.

    Opened in this order: what streams are told by, the loops, the subscription, and only then the server, so that
    nothing happens unheard after a stream was looked at.
    """
    async with AsyncExitStack() as stack:
        backbone = await stack.enter_async_context(
            open_backbone(SERVICE, settings, span_processors=span_processors, metric_readers=metric_readers)
        )
        tasks, telemetry = backbone.tasks, backbone.telemetry
        parts = _Parts(settings, backbone.database, telemetry)
        parts.start(tasks)
        await stack.enter_async_context(
            subscribe(
                backbone.events,
                Subscription.per_process(SERVICE, *EVENTS),
                parts.hinted,
                on_recreated=parts.attaching.look_at_all,
                tracer=telemetry.tracer,
                meter=telemetry.meter,
            )
        )
        server = await stack.enter_async_context(
            open_server(
                settings,
                servicers=[partial(add_AgentGatewayServiceServicer_to_server, parts.servicer)],
                authenticator=Authenticator(directory=NobodyElse()),
                access=ACCESS_TABLE,
                telemetry=telemetry,
                draining=parts.draining,
                faults=refusal_for,
                # gRPC's own limits drop calls without a word when thousands of agents come back at once.
                options={
                    "grpc.server.max_pending_requests": settings.max_pending_calls,
                    "grpc.server.max_pending_requests_hard_limit": settings.max_pending_calls,
                    "grpc.server_max_unrequested_time_in_server": _UNREQUESTED_FOR,
                },
            )
        )
        await parts.presence.enter(server.address)
        parts.start_presence(tasks, server.address)
        yield App(tasks, Addresses(grpc=server.address, metrics=telemetry.metrics_address))


class _Parts:
    """The gateway's parts, put together."""

    def __init__(self, settings: GatewaySettings, database: Database, telemetry: Telemetry) -> None:
        keys = settings.agent_keys()
        streams = HeldStreams()
        self._database = database
        self._check_interval = settings.check_interval
        self._detach_after = settings.detach_after
        self._loops = LoopMetrics(telemetry.meter)
        self._look_wakeups = Wakeups()
        self._write_wakeups = Wakeups()
        self.draining = Draining()
        self.metrics = GatewayMetrics(telemetry.meter, streams=lambda: len(streams))
        self.presence = Presence(
            database,
            draining=self.draining,
            clock=SystemClock(),
            wakeups=self._write_wakeups,
            detach_after=settings.detach_after,
        )
        self.attaching = Attaching(database, keys, streams, self.presence, self._look_wakeups)
        self.servicer = AgentGateway(
            Admission(database, keys),
            Manifests(database, keys, self.metrics),
            Reporting(database, keys, self.metrics),
            self.attaching,
        )

    def start(self, tasks: BackgroundTasks) -> None:
        """Run what streams are told by."""
        self._spawn(tasks, "looks", self.attaching.run_once, _RETRY_AFTER, self._look_wakeups)
        self._spawn(tasks, "check", self.attaching.look_at_all, self._check_interval)
        write_every = min(_RETRY_AFTER, max(self._detach_after / 2, timedelta(milliseconds=50)))
        self._spawn(tasks, "connections", self.presence.write_once, write_every, self._write_wakeups)
        self._spawn(tasks, "handovers", partial(self.metrics.refresh_once, self._database), _COUNT_EVERY)

    def start_presence(self, tasks: BackgroundTasks, address: str) -> None:
        """Keep the process's row fresh."""
        self._spawn(tasks, "presence", partial(self.presence.refresh_once, address), _REFRESH_EVERY)

    async def hinted(self, hint: Hint) -> None:
        """Look again at the streams of a workspace, in the hint's trace."""
        self.attaching.hint(WorkspaceId(hint.subject_id), current_traceparent() or hint.traceparent or "")

    def _spawn(
        self,
        tasks: BackgroundTasks,
        name: str,
        run_once: Callable[[], Awaitable[object]],
        interval: timedelta,
        wakeups: Wakeups | None = None,
    ) -> None:
        tasks.spawn(
            name, run_loop(name, run_once, interval=interval, wakeups=wakeups or Wakeups(), metrics=self._loops)
        )
