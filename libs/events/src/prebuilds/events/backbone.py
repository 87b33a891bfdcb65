"""What every server of the system opens first: telemetry, Postgres, NATS, the relay between them, its own tasks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import SpanProcessor
from pydantic import Field, SecretStr, field_validator

from prebuilds.chassis import deadline
from prebuilds.chassis.settings import DatabaseSettings, EventSettings
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.chassis.telemetry import Telemetry, current_traceparent, open_telemetry
from prebuilds.domain.principals import ServiceName
from prebuilds.events.connection import Events, open_events
from prebuilds.events.relay import open_relay
from prebuilds.events.streams import StreamLimits
from prebuilds.store.connections import check_url
from prebuilds.store.database import Database, open_database
from prebuilds.store.migrate import upgrade


class BackboneSettings(DatabaseSettings, EventSettings):
    """Postgres and NATS, and who brings the schema up to date."""

    migrate: bool = Field(default=True, description="Whether to bring the database to this release's schema at start.")

    @field_validator("database_url")
    @classmethod
    def _database_url_can_be_read(cls, value: SecretStr) -> SecretStr:
        check_url(value.get_secret_value())
        return value


@dataclass(frozen=True, slots=True)
class Backbone:
    """The opened parts."""

    telemetry: Telemetry
    database: Database
    events: Events
    tasks: BackgroundTasks
    """Ends before all the others, which its tasks use."""


@asynccontextmanager
async def open_backbone(
    service: ServiceName,
    settings: BackboneSettings,
    *,
    span_processors: Sequence[SpanProcessor] = (),
    metric_readers: Sequence[MetricReader] = (),
) -> AsyncGenerator[Backbone]:
    """Open them in this order and close them in the opposite one. Processors and readers are for tests.

    Postgres must be there, and is brought to this release's schema unless the settings say otherwise. NATS may be away:
    events go out when it is back.
    """
    database_url = settings.database_url.get_secret_value()
    if settings.migrate:
        await upgrade(database_url)
    program = f"prebuilds-{service}"
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(
            open_telemetry(
                service,
                metrics_address=settings.metrics_address or None,
                span_processors=span_processors,
                metric_readers=metric_readers,
            )
        )
        database = await stack.enter_async_context(
            open_database(
                database_url,
                pool_size=settings.database_pool_size,
                application_name=program,
                trace_context=current_traceparent,
                remaining_time=deadline.remaining,
            )
        )
        events = await stack.enter_async_context(
            open_events(
                settings.nats_url.get_secret_value(),
                name=program,
                credentials_file=settings.nats_credentials_file,
                streams=StreamLimits(replicas=settings.nats_replicas),
                meter=telemetry.meter,
            )
        )
        await stack.enter_async_context(open_relay(database, events, meter=telemetry.meter))
        tasks = await stack.enter_async_context(BackgroundTasks())
        yield Backbone(telemetry, database, events, tasks)
