"""The wiring of the claims service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import SpanProcessor

from prebuilds.chassis.access_table import ACCESS_TABLE
from prebuilds.chassis.addresses import Addresses
from prebuilds.chassis.identity.authenticator import authenticator_for
from prebuilds.chassis.process import App
from prebuilds.chassis.server import open_server
from prebuilds.claims.creating import Creations
from prebuilds.claims.reading import Reading
from prebuilds.claims.rpc.claims import Claims
from prebuilds.claims.rpc.workspaces import Workspaces
from prebuilds.claims.settings import ClaimsSettings
from prebuilds.claims.transitions import Transitions
from prebuilds.claims.watching import EVENTS, Watchers, Watching
from prebuilds.domain.principals import ServiceName
from prebuilds.events.backbone import open_backbone
from prebuilds.events.bodies import Hint
from prebuilds.events.consumers import Subscription
from prebuilds.events.subscriptions import subscribe
from prebuilds.store.directory import StoredDirectory
from prebuilds.store.faults import refusal_for
from prebuilds.v1.claim_service_pb2_grpc import add_ClaimServiceServicer_to_server
from prebuilds.v1.notification_service_pb2_grpc import (
    NotificationServiceServicer,
    add_NotificationServiceServicer_to_server,
)
from prebuilds.v1.workspace_service_pb2_grpc import add_WorkspaceServiceServicer_to_server

SERVICE: Final = ServiceName.CLAIMS


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
    async with AsyncExitStack() as stack:
        backbone = await stack.enter_async_context(
            open_backbone(SERVICE, settings, span_processors=span_processors, metric_readers=metric_readers)
        )
        database, telemetry = backbone.database, backbone.telemetry
        watchers = Watchers()

        async def hinted(hint: Hint) -> None:
            watchers.hint(hint.subject_id)

        async def look_again() -> None:
            watchers.hint_all()

        await stack.enter_async_context(
            subscribe(
                backbone.events,
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
        notifications = NotificationServiceServicer()  # pyright: ignore[reportAbstractUsage]
        server = await stack.enter_async_context(
            open_server(
                settings,
                servicers=[
                    partial(add_WorkspaceServiceServicer_to_server, workspaces),
                    partial(add_ClaimServiceServicer_to_server, claims),
                    partial(add_NotificationServiceServicer_to_server, notifications),
                ],
                authenticator=authenticator_for(SERVICE, settings, StoredDirectory(database)),
                access=ACCESS_TABLE,
                telemetry=telemetry,
                faults=refusal_for,
            )
        )
        yield App(backbone.tasks, Addresses(grpc=server.address, metrics=telemetry.metrics_address))
