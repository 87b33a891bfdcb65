"""The wiring of the reconciler."""

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
from prebuilds.chassis.loops import LoopMetrics, run_loop
from prebuilds.chassis.loops import Wakeups as LoopWakeups
from prebuilds.chassis.process import App
from prebuilds.chassis.server import open_server
from prebuilds.domain.principals import ServiceName
from prebuilds.events.backbone import open_backbone
from prebuilds.events.bodies import Hint
from prebuilds.events.subscriptions import subscribe
from prebuilds.reconciler import deaths, retention
from prebuilds.reconciler.administering import Administering
from prebuilds.reconciler.asking import Asking
from prebuilds.reconciler.auditing import Auditing
from prebuilds.reconciler.groups import Groups
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.inspecting import Inspector
from prebuilds.reconciler.invalidating import Invalidating
from prebuilds.reconciler.keys import Keys
from prebuilds.reconciler.measuring import Measuring
from prebuilds.reconciler.members import Members
from prebuilds.reconciler.membership import Membership
from prebuilds.reconciler.metrics import PoolMetrics
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.pausing import Pausing
from prebuilds.reconciler.promoting import Promoting
from prebuilds.reconciler.pushing import Pushing
from prebuilds.reconciler.reading import TemplateReading
from prebuilds.reconciler.retiring import Retiring
from prebuilds.reconciler.retrying import Retrying
from prebuilds.reconciler.rpc.admin import AdminServicer
from prebuilds.reconciler.rpc.pools import PoolServicer
from prebuilds.reconciler.rpc.templates import TemplateServicer
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.settings import ReconcilerSettings
from prebuilds.reconciler.templating import Templating
from prebuilds.reconciler.updating import Updating
from prebuilds.reconciler.users import Users
from prebuilds.reconciler.viewing import Viewing
from prebuilds.reconciler.wakeups import SUBSCRIPTION, Wakeups
from prebuilds.reconciler.watching import Watching
from prebuilds.store.directory import StoredDirectory
from prebuilds.store.faults import refusal_for
from prebuilds.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from prebuilds.v1.pool_service_pb2_grpc import add_PoolServiceServicer_to_server
from prebuilds.v1.template_service_pb2_grpc import add_TemplateServiceServicer_to_server

SERVICE: Final = ServiceName.RECONCILER


@asynccontextmanager
async def open_app(
    settings: ReconcilerSettings,
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

        loops = LoopMetrics(telemetry.meter)

        config = Config(backoff_interval=settings.backoff_interval, hard_limit=settings.hard_limit)
        hints = Hints()
        reconciler = Reconciler(
            database,
            hints,
            config=config,
            lookback=settings.backoff_lookback,
            # Claims of other services are not concerned; our own requests keep half of the connections.
            concurrency=max(1, settings.database_pool_size // 2),
            meter=telemetry.meter,
            tick=settings.reconciliation_interval,
        )
        wakeups = Wakeups(reconciler, hints, interval=settings.reconciliation_interval, metrics=loops)
        membership = Membership(database, interval=settings.reconciliation_interval, metrics=loops)

        async def hear(hint: Hint) -> None:
            membership.hear(hint)
            await wakeups.hear(hint)

        async def look_at_everything() -> None:
            membership.look()
            await wakeups.look_at_everything()

        await stack.enter_async_context(
            subscribe(
                backbone.events,
                SUBSCRIPTION,
                hear,
                on_recreated=look_at_everything,
                tracer=telemetry.tracer,
                meter=telemetry.meter,
            )
        )
        membership.start(backbone.tasks)
        wakeups.start(backbone.tasks)
        kept = retention.Retention(database, keep_for=settings.failed_retention)
        for name, run_once, interval in (
            ("deaths", partial(deaths.fail_disconnected, database), deaths.INTERVAL),
            ("retention", kept.run_once, retention.INTERVAL),
        ):
            loop = run_loop(name, run_once, interval=interval, wakeups=LoopWakeups(), metrics=loops)
            backbone.tasks.spawn(f"{name} loop", loop)

        if telemetry.has_readers:
            PoolMetrics(Measuring(database), telemetry.meter).start(
                backbone.tasks, interval=settings.metrics_interval, metrics=loops
            )

        inspector = Inspector(database, config=config, lookback=settings.backoff_lookback)
        templates = TemplateServicer(
            templating=Templating(database),
            pushing=Pushing(database),
            promoting=Promoting(database),
            updating=Updating(database),
            retiring=Retiring(database),
            reading=TemplateReading(database),
        )
        pools = PoolServicer(
            viewing=Viewing(database, inspector, Watching(inspector)),
            asking=Asking(database, reconciler, hints),
            invalidating=Invalidating(database),
            retrying=Retrying(database, inspector),
            pausing=Pausing(database),
        )
        # Methods that are not built yet are the base's own, which it declares abstract to type checkers.
        admin = AdminServicer(  # pyright: ignore[reportAbstractUsage] - as above
            administering=Administering(database),
            members=Members(database),
            groups=Groups(database),
            users=Users(database),
            keys=Keys(database),
            auditing=Auditing(database),
        )
        server = await stack.enter_async_context(
            open_server(
                settings,
                servicers=[
                    partial(add_TemplateServiceServicer_to_server, templates),
                    partial(add_PoolServiceServicer_to_server, pools),
                    partial(add_AdminServiceServicer_to_server, admin),
                ],
                authenticator=authenticator_for(SERVICE, settings, StoredDirectory(database)),
                access=ACCESS_TABLE,
                telemetry=telemetry,
                faults=refusal_for,
            )
        )
        yield App(backbone.tasks, Addresses(grpc=server.address, metrics=telemetry.metrics_address))
