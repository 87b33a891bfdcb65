"""The wiring of the provisioner daemon."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import structlog
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import SpanProcessor

from prebuilds.chassis.addresses import Addresses
from prebuilds.chassis.process import App
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.chassis.telemetry import open_telemetry
from prebuilds.domain.builds import BackendKind
from prebuilds.provisioner_daemon.backends.port import Backend
from prebuilds.provisioner_daemon.backends.process.backend import ProcessBackend
from prebuilds.provisioner_daemon.connection import Provisioner
from prebuilds.provisioner_daemon.messages import BACKENDS
from prebuilds.provisioner_daemon.settings import DaemonSettings
from prebuilds.provisioner_daemon.worker import Worker
from prebuilds.sdk.channels import Tls, open_channel
from prebuilds.v1 import job_pb2
from prebuilds.v1.provisioner_service_pb2_grpc import ProvisionerServiceStub

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_app(
    settings: DaemonSettings,
    *,
    span_processors: Sequence[SpanProcessor] = (),
    metric_readers: Sequence[MetricReader] = (),
) -> AsyncGenerator[App]:
    """Open the daemon; leaving drains it: no more jobs, and a grace for those that run.

    What should run on this host is brought back at first. Processors and readers are for tests.
    """
    backends = open_backends(settings)
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(
            open_telemetry(
                "provisioner-daemon",
                metrics_address=settings.metrics_address or None,
                span_processors=span_processors,
                metric_readers=metric_readers,
            )
        )
        ca_file = settings.provisioner_ca_file
        channel = await stack.enter_async_context(
            open_channel(
                settings.provisioner_address,
                token=settings.provisioner_key.get_secret_value(),
                tls=None if ca_file is None else Tls(ca_file=ca_file),
            )
        )
        tasks = await stack.enter_async_context(BackgroundTasks())
        daemon = job_pb2.Daemon(
            name=settings.own_name,
            host_id=settings.own_host,
            version=version("prebuilds-provisioner-daemon"),
            backends=[BACKENDS[kind] for kind in backends],
        )
        worker = Worker(
            Provisioner(ProvisionerServiceStub(channel), daemon),
            backends,
            slots=settings.jobs_at_once,
            tasks=tasks,
            tracer=telemetry.tracer,
            meter=telemetry.meter,
        )
        resuming = tasks.spawn("resume", _resume(backends.values()))
        acquiring = tasks.spawn("take jobs", worker.run())
        try:
            yield App(tasks, Addresses(metrics=telemetry.metrics_address))
        finally:
            acquiring.cancel()
            resuming.cancel()
            await worker.drain(settings.drain_grace)
            await asyncio.wait({resuming})
            if settings.suspend_at_exit:
                await asyncio.gather(*(backend.suspend() for backend in backends.values()))


async def _resume(backends: Iterable[Backend]) -> None:
    for backend in backends:
        resumed = await backend.resume()
        if resumed:
            _log.info("resumed what should run", agents=resumed)


def open_backends(settings: DaemonSettings) -> Mapping[BackendKind, Backend]:
    """Every backend that this daemon has."""
    command = shlex.split(settings.agent_command) or [sys.executable, "-I", "-m", "prebuilds.agent"]
    return {
        BackendKind.PROCESS: ProcessBackend(
            settings.state_root.resolve(),
            host_id=settings.own_host,
            agent_command=command,
            stop_grace=settings.agent_stop_grace,
            log_size=settings.agent_log_size,
        )
    }
