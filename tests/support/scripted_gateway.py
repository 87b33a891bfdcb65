"""An agent gateway whose every answer the test decides: a real gRPC server, to try agents against."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import grpc
import grpc.aio
from grpc_status import rpc_status

from prebuilds.chassis.status import to_status
from prebuilds.domain.agents import AgentState
from prebuilds.domain.refusals import Refusal
from prebuilds.sdk.agent import AgentClient, AgentStatus, Pacing, Started, StartupResult, open_agent_client
from prebuilds.v1 import agent_gateway_service_pb2 as pb
from prebuilds.v1.agent_gateway_service_pb2_grpc import (
    AgentGatewayServiceServicer,
    add_AgentGatewayServiceServicer_to_server,
)
from prebuilds.v1.agent_pb2 import AgentState as WireState
from prebuilds.v1.agent_pb2 import Manifest, Reinit
from tests.support.waiting import eventually

TOKEN = "pba_k1_00000000-0000-0000-0000-000000000000_c2VjcmV0"


_to_grpc = cast("Callable[[object], grpc.Status]", rpc_status.to_status)  # pyright: ignore[reportUnknownMemberType]


class End:
    """Ends a stream with OK."""


@dataclass(eq=False)
class HeldStream:
    incarnation: int
    attempt: int
    token: str
    orders: asyncio.Queue[Reinit | Refusal | End] = field(default_factory=asyncio.Queue)
    is_closed: bool = False

    def send(self, generation: int, owner: str = "alice", traceparent: str = "") -> None:
        self.orders.put_nowait(Reinit(generation=generation, owner_name=owner, traceparent=traceparent))

    def end(self, with_refusal: Refusal | None = None) -> None:
        self.orders.put_nowait(with_refusal or End())


@dataclass(frozen=True)
class Report:
    incarnation: int
    state: AgentState
    error: str


class ScriptedGateway(AgentGatewayServiceServicer):
    """Answers as a gateway without a Postgres: it holds streams, and refuses where it was told to."""

    def __init__(self) -> None:
        self.address = ""
        self._server: grpc.aio.Server | None = None
        self.manifest = Manifest(workspace_name="one", owner_name="prebuilds", is_prebuild=True, agent_name="main")
        self.begun: list[tuple[str, int]] = []
        self.reports: list[Report] = []
        self.streams: list[HeldStream] = []
        self.traceparents: dict[str, list[str | None]] = defaultdict(list)
        self.later: dict[str, deque[Refusal]] = defaultdict(deque)
        self._incarnations: dict[tuple[str, int], int] = {}

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def serve(self, port: int) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_AgentGatewayServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        await self._server.start()

    async def stop(self) -> None:
        """Be gone, streams and all."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def refuse(self, method: str, *refusals: Refusal) -> None:
        """The next calls of the method are refused, one by each; what comes after them is answered."""
        self.later[method].extend(refusals)

    def hand_over(self, owner: str = "alice", generation: int = 1) -> None:
        """From now on the manifest is the new owner's."""
        self.manifest.owner_name = owner
        self.manifest.generation = generation
        self.manifest.is_prebuild = False

    def states(self, incarnation: int) -> list[str]:
        return [report.state.value for report in self.reports if report.incarnation == incarnation]

    async def reported(self, incarnation: int, state: AgentState) -> Report:
        await eventually(lambda: state in self.states(incarnation), what=f"{state} of incarnation {incarnation}")
        return next(r for r in self.reports if r.incarnation == incarnation and r.state is state)

    async def stream(self, number: int) -> HeldStream:
        """The stream of that number, from 1, once it is there."""
        await eventually(lambda: len(self.streams) >= number, what=f"stream {number}")
        return self.streams[number - 1]

    async def GetManifest(
        self, request: pb.GetManifestRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetManifestResponse:
        pair = (request.process, request.entry)
        self.begun.append(pair)
        await self._maybe_refuse("GetManifest", context)
        incarnation = self._incarnations.setdefault(pair, len(self._incarnations) + 1)
        self.manifest.incarnation = incarnation
        return pb.GetManifestResponse(manifest=self.manifest)

    async def ReportState(
        self, request: pb.ReportStateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ReportStateResponse:
        await self._maybe_refuse("ReportState", context)
        name = WireState.Name(request.state).removeprefix("AGENT_STATE_")
        self.reports.append(Report(request.incarnation, AgentState[name], request.error))
        return pb.ReportStateResponse(state=request.state)

    async def StreamReinit(
        self, request: pb.StreamReinitRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.StreamReinitResponse]:
        token = str(dict(context.invocation_metadata() or ()).get("authorization", ""))
        stream = HeldStream(request.incarnation, request.attempt, token)
        self.streams.append(stream)
        try:
            await self._maybe_refuse("StreamReinit", context)
            while True:
                match await stream.orders.get():
                    case Refusal() as refusal:
                        await abort(context, refusal)
                    case End():
                        return
                    case reinit:
                        yield pb.StreamReinitResponse(reinit=reinit)
        finally:
            stream.is_closed = True

    async def _maybe_refuse(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        metadata = dict(context.invocation_metadata() or ())
        traceparent = metadata.get("traceparent")
        self.traceparents[method].append(None if traceparent is None else str(traceparent))
        if self.later[method]:
            await abort(context, self.later[method].popleft())


async def abort(context: grpc.aio.ServicerContext[Any, Any], refusal: Refusal) -> NoReturn:
    await context.abort_with_status(_to_grpc(to_status(refusal)))


@asynccontextmanager
async def serve_gateway(gateway: ScriptedGateway, port: int = 0) -> AsyncGenerator[ScriptedGateway]:
    """Serve on a free port, or on one that a gateway before had."""
    await gateway.serve(port)
    try:
        yield gateway
    finally:
        await gateway.stop()


@asynccontextmanager
async def open_gateway() -> AsyncGenerator[tuple[ScriptedGateway, AgentClient]]:
    async with serve_gateway(ScriptedGateway()) as gateway, open_agent_client(gateway.address, token=TOKEN) as client:
        yield gateway, client


class ManualTime:
    """Pauses last until the test ends them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []

    def pacing(self) -> Pacing:
        return Pacing(sleep=self.sleep, monotonic=lambda: self.now, fraction=lambda: 0.5)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        over = asyncio.get_running_loop().create_future()
        self._waiting.append((seconds, over))
        await over

    async def end_pause(self) -> float:
        """Wait for the next pause, end it, and tell how long it would have been."""
        await eventually(lambda: any(not over.done() for _, over in self._waiting), what="a pause")
        seconds, over = next(pause for pause in self._waiting if not pause[1].done())
        over.set_result(None)
        return seconds


class RecordedWork:
    """Work that only writes down what was asked of it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.result: StartupResult = Started()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.statuses: list[AgentStatus] = []

    async def start(self, manifest: Manifest) -> StartupResult:
        self.log.append(f"start {manifest.owner_name}")
        await self.may_end.wait()
        return self.result

    async def stop(self) -> None:
        self.log.append("stop")
