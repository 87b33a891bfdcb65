"""The wiring of the claims service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from prebuilds.chassis.access_table import ACCESS_TABLE
from prebuilds.chassis.addresses import Addresses
from prebuilds.chassis.identity.authenticator import authenticator_for
from prebuilds.chassis.process import App
from prebuilds.chassis.server import open_server
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.chassis.telemetry import open_telemetry
from prebuilds.claims.creating import Creations
from prebuilds.claims.reading import Reading
from prebuilds.claims.rpc.claims import Claims
from prebuilds.claims.rpc.workspaces import Workspaces
from prebuilds.claims.settings import ClaimsSettings
from prebuilds.claims.transitions import Transitions
from prebuilds.claims.watching import EVENTS, Watchers, Watching
from prebuilds.domain.principals import ServiceName
from prebuilds.events.bodies import Hint
from prebuilds.events.connection import open_events
from prebuilds.events.consumers import Subscription
from prebuilds.events.relay import open_relay
from prebuilds.events.streams import StreamLimits
from prebuilds.events.subscriptions import subscribe
from prebuilds.store.database import open_database
from prebuilds.store.directory import StoredDirectory
from prebuilds.store.faults import refusal_for
from prebuilds.store.migrate import upgrade
from prebuilds.v1.claim_service_pb2_grpc import add_ClaimServiceServicer_to_server
from prebuilds.v1.workspace_service_pb2_grpc import add_WorkspaceServiceServicer_to_server

SERVICE: Final = ServiceName.CLAIMS
_PROGRAM: Final = f"prebuilds-{SERVICE}"

_propagator = TraceContextTextMapPropagator()


@asynccontextmanager
async def open_app(
    settings: ClaimsSettings,
    *,
    span_processors: Sequence[SpanProcessor] = (),
    metric_readers: Sequence[MetricReader] = (),
) -> AsyncGenerator[App]:
    """Open the whole service and yield where it listens; leaving drains it. Processors and readers are for tests.

    With NATS away it serves all the same: events go out when it is back, and watchers look by themselves.
    """
    database_url = settings.database_url.get_secret_value()
    if settings.migrate:
        await upgrade(database_url)
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(
            open_telemetry(
                SERVICE,
                metrics_address=settings.metrics_address or None,
                span_processors=span_processors,
                metric_readers=metric_readers,
            )
        )
        database = await stack.enter_async_context(
            open_database(
                database_url,
                pool_size=settings.database_pool_size,
                application_name=_PROGRAM,
                trace_context=_traceparent,
            )
        )
        events = await stack.enter_async_context(
            open_events(
                settings.nats_url.get_secret_value(),
                name=_PROGRAM,
                credentials_file=settings.nats_credentials_file,
                streams=StreamLimits(replicas=settings.nats_replicas),
                meter=telemetry.meter,
            )
        )
        await stack.enter_async_context(open_relay(database, events, meter=telemetry.meter))
        tasks = await stack.enter_async_context(BackgroundTasks())
        watchers = Watchers()

        async def hinted(hint: Hint) -> None:
            watchers.hint(hint.subject_id)

        async def look_again() -> None:
            watchers.hint_all()

        await stack.enter_async_context(
            subscribe(
                events,
                Subscription.per_process(SERVICE, *EVENTS),
                hinted,
                on_recreated=look_again,
                tracer=telemetry.tracer,
                meter=telemetry.meter,
            )
        )
        reading = Reading(database)
        # Methods that are not built yet are the base's own, which it declares abstract to type checkers.
        workspaces = Workspaces(  # pyright: ignore[reportAbstractUsage]
            Creations(database, telemetry.meter), Transitions(database), reading, Watching(database, watchers)
        )
        claims = Claims(reading)  # pyright: ignore[reportAbstractUsage]
        server = await stack.enter_async_context(
            open_server(
                settings,
                servicers=[
                    partial(add_WorkspaceServiceServicer_to_server, workspaces),
                    partial(add_ClaimServiceServicer_to_server, claims),
                ],
                authenticator=authenticator_for(SERVICE, settings, StoredDirectory(database)),
                access=ACCESS_TABLE,
                telemetry=telemetry,
                faults=refusal_for,
            )
        )
        yield App(tasks, Addresses(grpc=server.address, metrics=telemetry.metrics_address))


def _traceparent() -> str | None:
    """The present span as W3C trace context; None outside of one."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")
