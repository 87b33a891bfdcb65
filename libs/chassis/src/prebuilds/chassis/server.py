"""The gRPC server of a service: limits, the chain, health, reflection, and an end in good order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from prebuilds.chassis.addresses import join_address, split_address
from prebuilds.chassis.calls import Draining, RunningCalls
from prebuilds.chassis.identity.authenticator import Authenticator
from prebuilds.chassis.interceptor import OBSERVED_SERVICES, Chain
from prebuilds.chassis.policy import AccessTable, rows_missing
from prebuilds.chassis.settings import ServerSettings
from prebuilds.chassis.telemetry import Telemetry
from prebuilds.chassis.tls import server_credentials
from prebuilds.domain.keepalive import PING_ANSWERED_WITHIN, PING_EVERY, PINGS_ALLOWED_EVERY, milliseconds
from prebuilds.domain.refusals import Refusal

Register = "Callable[[grpc.aio.Server], None]"
"""Adds a servicer to a server: `partial(add_PoolServiceServicer_to_server, servicer)`."""

_AGE_GRACE: Final = timedelta(seconds=30)

_log = structlog.get_logger(__name__)


class UnguardedMethodsError(Exception):
    """A server was about to serve methods that the access table does not name."""

    def __init__(self, methods: Sequence[str]) -> None:
        """All of them at once."""
        super().__init__(f"no row in the access table for: {', '.join(methods)}")
        self.methods = tuple(methods)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    address: str
    draining: Draining
    calls: RunningCalls


@asynccontextmanager
async def open_server(
    settings: ServerSettings,
    *,
    servicers: Sequence[Callable[[grpc.aio.Server], None]],
    authenticator: Authenticator,
    access: AccessTable,
    telemetry: Telemetry,
    draining: Draining | None = None,
    faults: Callable[[BaseException], Refusal | None] | None = None,
    options: Mapping[str, int] | None = None,
) -> AsyncGenerator[Server]:
    """Serve until the block is left, then drain.

    `draining` is the event that servicers were given too, to end long polls by; `faults` knows the errors of the app's
    dependencies; `options` go to gRPC beside and above the usual ones (the gateway's `grpc.max_pending_requests`).
    Raises UnguardedMethodsError where a method has no row in `access`.
    """
    draining = draining or Draining()
    calls = RunningCalls()
    chain = Chain(
        authenticator=authenticator,
        access=access,
        calls=calls,
        tracer=telemetry.tracer,
        meter=telemetry.meter,
        faults=faults,
    )
    server = grpc.aio.server(interceptors=[chain], options=_options(settings, options or {}))
    registered = _register(server, servicers)
    missing = rows_missing((path for paths in registered.values() for path in paths), access)
    if missing:
        raise UnguardedMethodsError(missing)

    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for service in registered:
        await health.set(service, health_pb2.HealthCheckResponse.SERVING)
    if settings.reflection:
        reflection.enable_server_reflection([*registered, *sorted(OBSERVED_SERVICES & _described())], server)

    host, port = split_address(settings.listen)
    credentials = server_credentials(settings)
    if credentials is None:
        bound = server.add_insecure_port(settings.listen)
    else:
        bound = server.add_secure_port(settings.listen, credentials)
    await server.start()
    _log.info("server started", address=join_address(host, bound), requested_port=port, services=sorted(registered))
    try:
        yield Server(join_address(host, bound), draining, calls)
    finally:
        await _drain(server, health, calls, draining, settings.drain_grace)


async def _drain(
    server: grpc.aio.Server,
    health: health_aio.HealthServicer,
    calls: RunningCalls,
    draining: Draining,
    grace: timedelta,
) -> None:
    """Health says no, nothing new is taken, streams end, what runs may finish, then all is closed."""
    running = len(calls)
    draining.set()
    await health.enter_graceful_shutdown()
    stopped = asyncio.ensure_future(server.stop(grace.total_seconds()))
    # `stop` takes effect in the loop's next turn; a stream ended before it could come back to this server.
    await asyncio.sleep(0)
    calls.end_streams()
    idle = asyncio.ensure_future(calls.idle())
    await asyncio.wait({stopped, idle}, return_when=asyncio.FIRST_COMPLETED)
    idle.cancel()
    calls.end_observers()
    await stopped
    _log.info("server drained", running=running, cut_off=len(calls))


class _Recorder:
    """Stands before the server while servicers are added, and writes down their methods."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.methods: dict[str, list[str]] = {}

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self.methods.setdefault(service_name, []).extend(f"/{service_name}/{name}" for name in method_handlers)
        # The stubs do not know this method, which all generated code calls.
        server = cast("Any", self._server)
        server.add_registered_method_handlers(service_name, method_handlers)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)


def _register(
    server: grpc.aio.Server, servicers: Sequence[Callable[[grpc.aio.Server], None]]
) -> Mapping[str, Sequence[str]]:
    recorder = _Recorder(server)
    for add in servicers:
        before = len(recorder.methods)
        add(cast("grpc.aio.Server", recorder))
        if len(recorder.methods) == before:
            # Handlers that do not say their names would pass by the access table.
            raise TypeError(f"{add!r} registered no named methods")
    return recorder.methods


def _described() -> frozenset[str]:
    return frozenset({"grpc.health.v1.Health", reflection.SERVICE_NAME})


def _options(settings: ServerSettings, more: Mapping[str, int]) -> list[tuple[str, int]]:
    usual = {
        "grpc.max_receive_message_length": settings.max_message_size,
        "grpc.max_send_message_length": settings.max_message_size,
        "grpc.max_concurrent_streams": settings.max_streams,
        # gRPC itself spreads the age by 10 %, so that connections do not all come back at once.
        "grpc.max_connection_age_ms": milliseconds(settings.max_connection_age),
        "grpc.max_connection_age_grace_ms": milliseconds(_AGE_GRACE),
        "grpc.keepalive_time_ms": milliseconds(PING_EVERY),
        "grpc.keepalive_timeout_ms": milliseconds(PING_ANSWERED_WITHIN),
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_ping_interval_without_data_ms": milliseconds(PINGS_ALLOWED_EVERY),
        # Two servers on one port would share its connections without a word; the second shall fail instead.
        "grpc.so_reuseport": 0,
    }
    return list((usual | dict(more)).items())
