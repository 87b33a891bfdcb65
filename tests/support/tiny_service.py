"""A service of five methods, to try the chain with: no proto of ours, registered the way generated code does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.status_pb2 import Status  # pyright: ignore[reportMissingTypeStubs] - beside a partial stub package
from grpc_status import rpc_status
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from prebuilds.chassis import deadline
from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.calls import Draining
from prebuilds.chassis.policy import AccessTable, Grant
from prebuilds.chassis.server import Server, open_server
from prebuilds.chassis.settings import ServerSettings
from prebuilds.chassis.telemetry import Telemetry, open_telemetry
from prebuilds.domain.principals import ServiceName
from tests.support.identity import Identity

NAME = "prebuilds.test.Tiny"
KINDS = {
    "Unary": (False, False),
    "Watch": (False, True),
    "WatchByWriting": (False, True),
    "Collect": (True, False),
    "Chat": (True, True),
    "Unbuilt": (False, False),
    "UnbuiltWatch": (False, True),
}
OPEN: AccessTable = {f"/{NAME}/{method}": Grant(everybody=True, services=frozenset(ServiceName)) for method in KINDS}


@dataclass
class Tiny:
    """What a test wants to happen is put into `fails` and `gate`; what happened is found in the rest."""

    fails: BaseException | None = None
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    remaining: float | None = None
    callers: list[str] = field(default_factory=list[str])
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    timeout: float | None = None

    async def _happen(self, context: Any) -> None:
        left = deadline.remaining()
        self.remaining = None if left is None else left.total_seconds()
        self.callers.append(current_caller().key)
        self.metadata = dict(context.invocation_metadata())
        self.entered.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.fails is not None:
                raise self.fails
        finally:
            self.left.set()

    async def Unary(self, request: StringValue, context: Any) -> StringValue:
        await self._happen(context)
        return StringValue(value=request.value.upper())

    async def Watch(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        for letter in request.value:
            yield StringValue(value=letter)
        await self._happen(context)

    async def WatchByWriting(self, request: StringValue, context: Any) -> None:
        for letter in request.value:
            await context.write(StringValue(value=letter))
        await self._happen(context)

    async def Collect(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        text = "".join([request.value async for request in requests])
        await self._happen(context)
        return StringValue(value=text)

    async def Chat(self, requests: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield StringValue(value=request.value.upper())
        await self._happen(context)

    # As protoc's generated base class does it.
    def Unbuilt(self, request: Any, context: Any) -> None:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")

    UnbuiltWatch = Unbuilt


def register(tiny: Tiny, server: Any) -> None:
    """What `add_TinyServicer_to_server` would do."""
    makers = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    handlers = {
        name: makers[kind](
            getattr(tiny, name),
            request_deserializer=StringValue.FromString,
            response_serializer=StringValue.SerializeToString,
        )
        for name, kind in KINDS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
    server.add_registered_method_handlers(NAME, handlers)


class TinyClient:
    """Typed calls on a channel, with a token."""

    def __init__(self, channel: grpc.aio.Channel, token: str | None) -> None:
        self.channel = channel
        self.metadata = [] if token is None else [("authorization", f"Bearer {token}")]

    def unary(self, text: str, method: str = "Unary", **options: Any) -> Any:
        return self._call("unary_unary", method)(StringValue(value=text), metadata=self.metadata, **options)

    def watch(self, text: str, method: str = "Watch", **options: Any) -> Any:
        return self._call("unary_stream", method)(StringValue(value=text), metadata=self.metadata, **options)

    def collect(self, *texts: str) -> Any:
        return self._call("stream_unary", "Collect")([StringValue(value=t) for t in texts], metadata=self.metadata)

    def chat(self, *texts: str) -> Any:
        return self._call("stream_stream", "Chat")([StringValue(value=t) for t in texts], metadata=self.metadata)

    def raw(self, body: bytes, method: str = "Unary") -> Any:
        channel: Any = self.channel
        return channel.unary_unary(f"/{NAME}/{method}")(body, metadata=self.metadata)

    def _call(self, kind: str, method: str) -> Any:
        return getattr(self.channel, kind)(
            f"/{NAME}/{method}",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )


@dataclass
class Stage:
    """A running tiny server and all that a test looks at."""

    tiny: Tiny
    server: Server
    telemetry: Telemetry
    identity: Identity
    client: TinyClient
    spans: InMemorySpanExporter
    metrics: InMemoryMetricReader
    stack: AsyncExitStack

    async def drain(self) -> None:
        """Close the server as the process would; the channels stay."""
        await self.stack.aclose()


def status_of(error: grpc.aio.AioRpcError) -> Status | None:
    """The rich status that came with a failed call."""
    call: Any = error  # it has what is asked of a call
    return cast("Status | None", rpc_status.from_call(call))  # pyright: ignore[reportUnknownMemberType]


@asynccontextmanager
async def open_stage(
    identity: Identity,
    *,
    tiny: Tiny | None = None,
    access: AccessTable = OPEN,
    settings: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncGenerator[Stage]:
    """Serve the tiny service on a free port and open a channel to it, signed in as alice."""
    tiny = tiny or Tiny()
    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    async with (
        open_telemetry("test", span_processors=[SimpleSpanProcessor(spans)], metric_readers=[metrics]) as telemetry,
        AsyncExitStack() as stack,
    ):
        server = await stack.enter_async_context(
            open_server(
                ServerSettings.model_validate({"listen": "127.0.0.1:0", **(settings or {})}),
                servicers=[lambda added: register(tiny, added)],
                authenticator=identity.authenticator,
                access=access,
                telemetry=telemetry,
                draining=Draining(),
                **more,
            )
        )
        async with grpc.aio.insecure_channel(server.address) as channel:
            client = TinyClient(channel, identity.token("alice"))
            yield Stage(tiny, server, telemetry, identity, client, spans, metrics, stack)
