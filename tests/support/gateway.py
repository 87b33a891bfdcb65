"""A gateway on a free port, and agents that call it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest
from grpc_status import rpc_status
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from prebuilds.agent_gateway.app import open_app
from prebuilds.agent_gateway.settings import GatewaySettings
from prebuilds.chassis.process import App
from prebuilds.chassis.status import reason_of
from prebuilds.domain.agents import mint_agent_token
from prebuilds.domain.ids import AgentId, ClaimId
from prebuilds.store.database import Database
from prebuilds.v1 import agent_pb2
from prebuilds.v1.agent_gateway_service_pb2 import (
    GetManifestRequest,
    ReportStateRequest,
    StreamReinitRequest,
    StreamReinitResponse,
)
from prebuilds.v1.agent_gateway_service_pb2_grpc import AgentGatewayServiceStub
from tests.support import builders
from tests.support.builders import KEY_ID, KEYS
from tests.support.waiting import eventually

AWAY = "nats://127.0.0.1:1"
"""No NATS server is there."""

ReinitCall = grpc.aio.UnaryStreamCall[StreamReinitRequest, StreamReinitResponse]


@dataclass
class Telling:
    """What the gateway measured."""

    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    metrics: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self.metrics.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


OpenGateway = Callable[..., AbstractAsyncContextManager[App]]


@pytest.fixture
def open_gateway(database_url: str, nats_url: str) -> OpenGateway:
    """Opens gateways on this test's database; settings may be changed by name."""

    @asynccontextmanager
    async def open_one(telling: Telling | None = None, **changed: Any) -> AsyncGenerator[App]:
        values: dict[str, Any] = {
            "database_url": SecretStr(database_url),
            "database_pool_size": 5,
            "nats_url": SecretStr(nats_url),
            "agent_token_keys": {key_id: SecretStr(key.decode()) for key_id, key in KEYS.items()},
            "agent_token_key_id": KEY_ID,
            "check_interval": "100ms",
            "detach_after": "100ms",
            "metrics_address": "",
            "migrate": False,
            **changed,
        }
        telling = telling or Telling()
        async with open_app(
            GatewaySettings(**values),
            span_processors=[SimpleSpanProcessor(telling.spans)],
            metric_readers=[telling.metrics],
        ) as app:
            yield app

    return open_one


@pytest.fixture
async def gateway(open_gateway: OpenGateway) -> AsyncIterator[App]:
    """A gateway that checks its streams ten times a second."""
    async with open_gateway() as app:
        yield app


class FakeAgent:
    """An agent process that does what a test tells it to."""

    def __init__(
        self, channel: grpc.aio.Channel, agent_id: AgentId, *, epoch: int = 1, token: str | None = None
    ) -> None:
        self.stub = AgentGatewayServiceStub(channel)
        self.token = token or mint_agent_token(KEYS, KEY_ID, agent_id, epoch)
        self.metadata: list[tuple[str, str]] = [("authorization", f"Bearer {self.token}")]
        self.process = str(uuid4())
        self.entry = 0
        self.attempt = 0
        self.incarnation = 0
        self.held: list[ReinitCall] = []
        """Streams that were opened; a call that nobody refers to is cancelled."""

    async def begin(self) -> agent_pb2.Manifest:
        """Begin again."""
        self.entry += 1
        return await self.ask()

    async def ask(self, entry: int | None = None) -> agent_pb2.Manifest:
        """Ask for the manifest of the present entry."""
        request = GetManifestRequest(process=self.process, entry=entry or self.entry)
        manifest = (await self.stub.GetManifest(request, metadata=self.metadata)).manifest
        self.incarnation, self.attempt = manifest.incarnation, 0
        return manifest

    async def report(self, state: agent_pb2.AgentState.ValueType, error: str = "") -> agent_pb2.AgentState.ValueType:
        request = ReportStateRequest(incarnation=self.incarnation, state=state, error=error)
        return (await self.stub.ReportState(request, metadata=self.metadata)).state

    async def become_ready(self) -> agent_pb2.Manifest:
        """Begin and end the startup well."""
        manifest = await self.begin()
        await self.report(agent_pb2.AGENT_STATE_STARTING)
        await self.report(agent_pb2.AGENT_STATE_READY)
        return manifest

    def stream(self, *, incarnation: int | None = None, attempt: int | None = None) -> ReinitCall:
        """Open a stream, the next attempt of this incarnation."""
        self.attempt += 1
        request = StreamReinitRequest(incarnation=incarnation or self.incarnation, attempt=attempt or self.attempt)
        call = self.stub.StreamReinit(request, metadata=self.metadata)
        self.held.append(call)
        return call


async def everything(call: ReinitCall) -> list[agent_pb2.Reinit]:
    """All that comes until the stream ends well."""
    received: list[agent_pb2.Reinit] = []
    while (response := await call.read()) is not grpc.aio.EOF:
        assert isinstance(response, StreamReinitResponse)
        received.append(response.reinit)
    return received


async def refused(call: ReinitCall | Awaitable[object]) -> tuple[grpc.StatusCode, str | None]:
    """Wait for the refusal of a call, unary or streaming; code and reason."""
    waiting = call if isinstance(call, Awaitable) else everything(call)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await waiting
    # The package is typed nowhere.
    status = cast("Any", rpc_status).from_call(error.value)
    return error.value.code(), None if status is None else reason_of(status)


@pytest.fixture
async def channel(gateway: App) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to the gateway."""
    async with grpc.aio.insecure_channel(gateway.grpc) as opened:
        yield opened


@dataclass(frozen=True)
class PoolRow:
    """What the tests look at of a row in the pool."""

    state: str
    is_ready: bool
    gateways: tuple[UUID, ...] | None
    is_disconnected: bool
    failure_class: str | None


async def pool_row(database: Database, prebuild: builders.Built) -> PoolRow:
    """The row of an unclaimed prebuild."""
    async with database.transaction("test") as tx:
        row = await tx.fetch_one(
            """
            SELECT state, ready_at IS NOT NULL AS is_ready, gateways, disconnected_at IS NOT NULL AS is_disconnected,
                failure_class
            FROM prebuilds WHERE workspace_id = %(id)s
            """,
            {"id": prebuild.workspace_id},
            row=PoolRow,
        )
    assert row is not None
    return row


async def is_ready(database: Database, prebuild: builders.Built) -> tuple[bool, bool]:
    """Whether a prebuild is ready, and whether it is connected."""
    row = await pool_row(database, prebuild)
    return row.is_ready, row.gateways is not None


async def claim_state(database: Database, claim_id: ClaimId) -> str:
    """How far a claim is."""
    query = "SELECT state FROM claims WHERE id = %(id)s"
    async with database.transaction("test") as tx:
        state = await tx.fetch_one(query, {"id": claim_id}, row=str)
    assert state is not None
    return state


async def connect(database: Database, agent: FakeAgent, prebuild: builders.Built) -> ReinitCall:
    """Bring the only agent of a prebuild to where the prebuild is eligible; gives its stream."""
    await agent.become_ready()
    stream = agent.stream()

    async def is_eligible() -> bool:
        return await is_ready(database, prebuild) == (True, True)

    await eventually(is_eligible)
    return stream
