"""The wiring of the provisioner service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from prebuilds.chassis.access_table import ACCESS_TABLE
from prebuilds.chassis.addresses import Addresses
from prebuilds.chassis.calls import Draining
from prebuilds.chassis.identity.authenticator import authenticator_for
from prebuilds.chassis.loops import LoopMetrics, Wakeups, run_loop
from prebuilds.chassis.process import App
from prebuilds.chassis.server import open_server
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.chassis.telemetry import open_telemetry
from prebuilds.domain.events import EventKind
from prebuilds.domain.principals import ServiceName
from prebuilds.events.bodies import Hint
from prebuilds.events.connection import open_events
from prebuilds.events.consumers import Subscription
from prebuilds.events.relay import open_relay
from prebuilds.events.streams import StreamLimits
from prebuilds.events.subscriptions import subscribe
from prebuilds.provisioner.acquiring import Acquisitions, TokenKeys
from prebuilds.provisioner.hints import QueueHints
from prebuilds.provisioner.reporting import Reports
from prebuilds.provisioner.rpc.provisioner_service import ProvisionerServicer
from prebuilds.provisioner.rules.lost_jobs import Patience
from prebuilds.provisioner.settings import ProvisionerSettings
from prebuilds.provisioner.sweeps import sweep
from prebuilds.store.database import open_database
from prebuilds.store.directory import StoredDirectory
from prebuilds.store.faults import refusal_for
from prebuilds.store.jobs.leasing import MAX_ATTEMPTS
from prebuilds.store.migrate import upgrade
from prebuilds.v1.provisioner_service_pb2_grpc import add_ProvisionerServiceServicer_to_server

_propagator = TraceContextTextMapPropagator()


@asynccontextmanager
async def open_app(
    settings: ProvisionerSettings,
    *,
    span_processors: Sequence[SpanProcessor] = (),
    metric_readers: Sequence[MetricReader] = (),
) -> AsyncGenerator[App]:
    """Open the whole service and yield where it listens; leaving drains it. Processors and readers are for tests."""
    database_url = settings.database_url.get_secret_value()
    if settings.migrate:
        await upgrade(database_url)
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(BackgroundTasks())
        telemetry = await stack.enter_async_context(
            open_telemetry(
                "provisioner",
                metrics_address=settings.metrics_address or None,
                span_processors=span_processors,
                metric_readers=metric_readers,
            )
        )
        database = await stack.enter_async_context(
            open_database(
                database_url,
                pool_size=settings.database_pool_size,
                application_name="prebuilds-provisioner",
                trace_context=_traceparent,
            )
        )
        events = await stack.enter_async_context(
            open_events(
                settings.nats_url.get_secret_value(),
                name="prebuilds-provisioner",
                credentials_file=settings.nats_credentials_file,
                streams=StreamLimits(replicas=settings.nats_replicas),
                meter=telemetry.meter,
            )
        )
        await stack.enter_async_context(open_relay(database, events, meter=telemetry.meter))

        draining = Draining()
        hints = QueueHints()

        async def queued(_: Hint) -> None:
            hints.hint()

        async def look_again() -> None:
            hints.hint()

        await stack.enter_async_context(
            subscribe(
                events,
                Subscription.per_process("provisioner", EventKind.JOB_QUEUED),
                queued,
                on_recreated=look_again,
                tracer=telemetry.tracer,
                meter=telemetry.meter,
            )
        )
        acquisitions = Acquisitions(
            database,
            keys=TokenKeys(settings.agent_keys(), settings.agent_token_key_id),
            hints=hints,
            draining=draining,
            lease_for=settings.lease_duration,
            gateway_address=settings.gateway_url,
            meter=telemetry.meter,
        )
        reports = Reports(
            database, lease_for=settings.lease_duration, cancel_grace=settings.cancel_grace, meter=telemetry.meter
        )
        patience = Patience(settings.cancel_grace, settings.longest_wait, MAX_ATTEMPTS)
        tasks.spawn(
            "sweep jobs",
            run_loop(
                "sweep jobs",
                partial(sweep, database, patience),
                interval=settings.sweep_interval,
                wakeups=Wakeups(),
                metrics=LoopMetrics(telemetry.meter),
            ),
        )
        # Methods that are not built yet are the base's own, which it declares abstract to type checkers.
        servicer = ProvisionerServicer(acquisitions, reports)  # pyright: ignore[reportAbstractUsage]
        server = await stack.enter_async_context(
            open_server(
                settings,
                servicers=[partial(add_ProvisionerServiceServicer_to_server, servicer)],
                authenticator=authenticator_for(ServiceName.PROVISIONER, settings, StoredDirectory(database)),
                access=ACCESS_TABLE,
                telemetry=telemetry,
                draining=draining,
                faults=refusal_for,
            )
        )
        yield App(tasks, Addresses(grpc=server.address, metrics=telemetry.metrics_address))


def _traceparent() -> str | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")
