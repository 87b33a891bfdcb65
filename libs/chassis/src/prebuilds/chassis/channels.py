"""Channels from one service to another: who we are, where we are in the trace, and how long we still wait."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from prebuilds.chassis import deadline
from prebuilds.chassis.identity.credentials import ServiceCredentials
from prebuilds.domain.keepalive import PING_ANSWERED_WITHIN, PING_EVERY, milliseconds
from prebuilds.domain.principals import ServiceName

_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", milliseconds(PING_EVERY)),
    ("grpc.keepalive_timeout_ms", milliseconds(PING_ANSWERED_WITHIN)),
    # By default two pings without a message between them are all; a quiet stream would then look alive for ever.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.lb_policy_name", "round_robin"),
)

_Message = Any

_propagator = TraceContextTextMapPropagator()


@asynccontextmanager
async def open_channel(
    address: str,
    *,
    callee: ServiceName,
    credentials: ServiceCredentials | None = None,
    tls: grpc.ChannelCredentials | None = None,
) -> AsyncGenerator[grpc.aio.Channel]:
    """Open a channel to another service; it connects at the first call and again whenever needed."""
    outfit = _Outfit(callee, credentials)
    # A single object that is an interceptor of both kinds would be registered for the first kind only.
    interceptors = [_UnaryOutfit(outfit), _StreamOutfit(outfit)]
    if tls is None:
        channel = grpc.aio.insecure_channel(address, options=_OPTIONS, interceptors=interceptors)
    else:
        channel = grpc.aio.secure_channel(address, tls, options=_OPTIONS, interceptors=interceptors)
    async with channel:
        yield channel


class _Outfit:
    """What every call is given on its way."""

    def __init__(self, callee: ServiceName, credentials: ServiceCredentials | None) -> None:
        self._callee = callee
        self._credentials = credentials

    def dress(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        """The call's details with trace context, authorization and no more time than the caller's caller gives."""
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        for key, value in carrier.items():
            metadata[key] = value
        if self._credentials is not None and "authorization" not in metadata:
            metadata["authorization"] = self._credentials.authorization(self._callee)
        left = deadline.remaining()
        timeout = details.timeout
        if left is not None:
            timeout = left.total_seconds() if timeout is None else min(timeout, left.total_seconds())
        return grpc.aio.ClientCallDetails(
            details.method, timeout, metadata, details.credentials, details.wait_for_ready
        )


class _UnaryOutfit(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, outfit: _Outfit) -> None:
        self._outfit = outfit

    async def intercept_unary_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: _Message,
    ) -> _Message:
        return await continuation(self._outfit.dress(client_call_details), request)


class _StreamOutfit(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, outfit: _Outfit) -> None:
        self._outfit = outfit

    async def intercept_unary_stream(
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: _Message,
    ) -> _Message:
        return await continuation(self._outfit.dress(client_call_details), request)
