"""The wiring of the provisioner service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import SpanProcessor

from prebuilds.chassis.access_table import ACCESS_TABLE
from prebuilds.chassis.addresses import Addresses
from prebuilds.chassis.calls import Draining
from prebuilds.chassis.identity.authenticator import authenticator_for
from prebuilds.chassis.loops import LoopMetrics, Wakeups, run_loop
from prebuilds.chassis.process import App
from prebuilds.chassis.server import open_server
from prebuilds.domain.events import EventKind
from prebuilds.domain.principals import ServiceName
from prebuilds.events.backbone import Backbone, open_backbone
from prebuilds.events.consumers import Subscription
from prebuilds.events.subscriptions import subscribe
from prebuilds.provisioner.acquiring import Acquisitions, TokenKeys
from prebuilds.provisioner.hints import QueueHints
from prebuilds.provisioner.reporting import Reports
from prebuilds.provisioner.rpc.provisioner_service import ProvisionerServicer
from prebuilds.provisioner.rules.lost_jobs import Patience
from prebuilds.provisioner.settings import ProvisionerSettings
from prebuilds.provisioner.sweeps import sweep
from prebuilds.store.directory import StoredDirectory
from prebuilds.store.faults import refusal_for
from prebuilds.store.jobs.leasing import MAX_ATTEMPTS
from prebuilds.v1.provisioner_service_pb2_grpc import add_ProvisionerServiceServicer_to_server

SERVICE: Final = ServiceName.PROVISIONER


@asynccontextmanager
async def open_app(
    settings: ProvisionerSettings,
    *,
    span_processors: Sequence[SpanProcessor] = (),
    metric_readers: Sequence[MetricReader] = (),
) -> AsyncGenerator[App]:
    """Open the whole service and yield where it listens; leaving drains it. Processors and readers are for tests."""
    async with AsyncExitStack() as stack:
        backbone = await stack.enter_async_context(
            open_backbone(SERVICE, settings, span_processors=span_processors, metric_readers=metric_readers)
        )
        database, telemetry = backbone.database, backbone.telemetry

        draining = Draining()
        hints = QueueHints()

        await stack.enter_async_context(
            subscribe(
                backbone.events,
                Subscription.per_process(SERVICE, EventKind.JOB_QUEUED),
                hints.hear,
                on_recreated=hints.look_again,
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
        backbone.tasks.spawn("sweep jobs", _sweep(settings, backbone))
        # Methods that are not built yet are the base's own, which it declares abstract to type checkers.
        servicer = ProvisionerServicer(acquisitions, reports)  # pyright: ignore[reportAbstractUsage] - as above
        server = await stack.enter_async_context(
            open_server(
                settings,
                servicers=[partial(add_ProvisionerServiceServicer_to_server, servicer)],
                authenticator=authenticator_for(SERVICE, settings, StoredDirectory(database)),
                access=ACCESS_TABLE,
                telemetry=telemetry,
                draining=draining,
                faults=refusal_for,
            )
        )
        yield App(backbone.tasks, Addresses(grpc=server.address, metrics=telemetry.metrics_address))


async def _sweep(settings: ProvisionerSettings, backbone: Backbone) -> None:
    patience = Patience(settings.cancel_grace, settings.longest_wait, MAX_ATTEMPTS)
    await run_loop(
        "sweep jobs",
        partial(sweep, backbone.database, patience),
        interval=settings.sweep_interval,
        wakeups=Wakeups(),
        metrics=LoopMetrics(backbone.telemetry.meter),
    )
