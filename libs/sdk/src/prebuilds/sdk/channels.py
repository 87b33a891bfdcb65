"""Channels: where a server is, how it is known to be the one, and who calls.

An address is `host:port`, `http://host:port` (plain) or `https://host[:port]` (TLS, port 443 unless given); without a
scheme a channel uses TLS exactly when `tls` is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from prebuilds.domain.keepalive import PING_ANSWERED_WITHIN, PING_EVERY, milliseconds

Token: TypeAlias = str | Callable[[], str]
"""A bearer token, or what gives the present one: it is asked at every call, in the event loop, and must not wait."""

MAX_MESSAGE_SIZE: Final = 16 * 1024 * 1024
"""Largest message sent or received, in bytes."""

_HTTPS_PORT: Final = 443
_SCHEMES: Final = {"http": False, "https": True}

_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", milliseconds(PING_EVERY)),
    ("grpc.keepalive_timeout_ms", milliseconds(PING_ANSWERED_WITHIN)),
    # A stream that waits for a handover sends nothing for hours; with the default it would stop pinging.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_SIZE),
    ("grpc.max_receive_message_length", MAX_MESSAGE_SIZE),
    # The callers' own backoff spreads them; the channel's must not add much to it once the server is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_RETRY: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_READING: Final = ("Get", "List", "Plan")

# What passes through an interceptor is of the method's type, which is not ours to know.
_Message: TypeAlias = Any

_propagator = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server is known, and what is shown to it."""

    ca_file: Path | None = None
    """PEM authorities to believe; None = those of the system."""
    certificate_file: Path | None = None
    """PEM certificate to show (mTLS); goes together with `key_file`."""
    key_file: Path | None = None
    """PEM private key of that certificate."""
    server_name: str | None = None
    """Name that the server's certificate must have, where it is not the address's host."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; raises OSError where one cannot be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.certificate_file),
        )


@dataclass(frozen=True, slots=True)
class Target:
    """An address, taken apart: what gRPC connects to, and whether by TLS."""

    host_and_port: str
    is_secure: bool
    tls: Tls = field(default_factory=Tls)

    @classmethod
    def of(cls, address: str, tls: Tls | None = None) -> Target:
        """Read an address; raises ValueError where it is none."""
        if "://" not in address:
            if urlsplit(f"//{address}").port is None:
                raise ValueError(f"address {address!r} must be host:port or an http(s) URL")
            return cls(address, tls is not None, tls or Tls())
        parts = urlsplit(address)
        secure = _SCHEMES.get(parts.scheme)
        if secure is None or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"address {address!r} must be host:port or an http(s) URL without a path")
        if parts.username is not None:
            raise ValueError("an address holds no user and no password; give the token separately")
        if parts.port is None and not secure:
            raise ValueError(f"address {address!r} lacks a port")
        if tls is not None and not secure:
            raise ValueError(f"address {address!r} asks for no TLS, but TLS settings were given")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{host}:{parts.port or _HTTPS_PORT}", secure, tls or Tls())


def open_channel(
    address: str, *, token: Token | None = None, tls: Tls | None = None, services: Iterable[ServiceDescriptor] = ()
) -> grpc.aio.Channel:
    """Make a channel; it connects at the first call and again whenever needed. Close it with `async with`.

    Calls carry the token and the present trace context. Of the `services`, methods that only read are repeated by gRPC
    itself while the server cannot be reached (UNAVAILABLE): up to 5 times, 0.1 s to 2 s apart.
    """
    interceptors: list[grpc.aio.ClientInterceptor] = [_UnaryOutfit(token), _StreamOutfit(token)]
    return open_plain_channel(address, tls=tls, services=services, interceptors=interceptors)


def open_plain_channel(
    address: str,
    *,
    tls: Tls | None = None,
    services: Iterable[ServiceDescriptor] = (),
    interceptors: list[grpc.aio.ClientInterceptor] | None = None,
) -> grpc.aio.Channel:
    """Make a channel whose calls bring their metadata themselves: one object and one task less for each stream."""
    target = Target.of(address, tls)
    options: list[tuple[str, str | int]] = [*_OPTIONS, ("grpc.service_config", service_config(services))]
    if target.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", target.tls.server_name))
    if not target.is_secure:
        return grpc.aio.insecure_channel(target.host_and_port, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(
        target.host_and_port, target.tls.credentials(), options=options, interceptors=interceptors
    )


def service_config(services: Iterable[ServiceDescriptor]) -> str:
    """The gRPC service config that repeats reads; what changes something is repeated under a request id only."""
    reading = [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if method.name.startswith(_READING) and not method.server_streaming
    ]
    return json.dumps({"methodConfig": [{"name": reading, "retryPolicy": _RETRY}] if reading else []})


def outfit(metadata: grpc.aio.Metadata, token: Token | None) -> grpc.aio.Metadata:
    """Add to a call's metadata who calls, and the trace that the call belongs to, where it does not say so itself."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    for key, value in carrier.items():
        if key not in metadata:
            metadata.add(key, value)
    if token is not None and "authorization" not in metadata:
        metadata.add("authorization", f"Bearer {token if isinstance(token, str) else token()}")
    return metadata


def _dress(details: grpc.aio.ClientCallDetails, token: Token | None) -> grpc.aio.ClientCallDetails:
    metadata = outfit(grpc.aio.Metadata(*(details.metadata or ())), token)
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


class _UnaryOutfit(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, token: Token | None) -> None:
        self._token = token

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: _Message
    ) -> _Message:
        return await continuation(_dress(client_call_details, self._token), request)


class _StreamOutfit(grpc.aio.UnaryStreamClientInterceptor):
    """Apart from the other: one object of both kinds would be registered for the first kind only."""

    def __init__(self, token: Token | None) -> None:
        self._token = token

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: _Message
    ) -> _Message:
        return await continuation(_dress(client_call_details, self._token), request)


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
