"""AgentGatewayService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from grpc.aio import ServicerContext

from prebuilds.agent_gateway.admitting import Admission
from prebuilds.agent_gateway.attaching import Attaching
from prebuilds.agent_gateway.manifests import Manifests
from prebuilds.agent_gateway.reporting import Reporting
from prebuilds.agent_gateway.rpc import messages
from prebuilds.chassis.caller import current_caller
from prebuilds.domain.refusals import Refusal
from prebuilds.v1.agent_gateway_service_pb2 import (
    GetManifestRequest,
    GetManifestResponse,
    ReportStateRequest,
    ReportStateResponse,
    StreamReinitRequest,
    StreamReinitResponse,
)
from prebuilds.v1.agent_gateway_service_pb2_grpc import AgentGatewayServiceServicer

Request = TypeVar("Request")
Value = TypeVar("Value")


class AgentGateway(AgentGatewayServiceServicer):
    """What agents call; each sees its own workspace only."""

    def __init__(self, admission: Admission, manifests: Manifests, reporting: Reporting, attaching: Attaching) -> None:
        """One use case for each method, each of which checks the token where it reads the agent anyway."""
        self._admission = admission
        self._manifests = manifests
        self._reporting = reporting
        self._attaching = attaching

    async def GetManifest(
        self,
        request: GetManifestRequest,
        context: ServicerContext[GetManifestRequest, Awaitable[GetManifestResponse]],
    ) -> GetManifestResponse:
        """Begin an incarnation."""
        beginning = await self._read(messages.beginning_of, request)

        manifest = await self._manifests.begin(current_caller().agent(), beginning)

        return GetManifestResponse(manifest=messages.manifest_message(manifest))

    async def ReportState(
        self,
        request: ReportStateRequest,
        context: ServicerContext[ReportStateRequest, Awaitable[ReportStateResponse]],
    ) -> ReportStateResponse:
        """Store how far an incarnation is."""
        report = await self._read(messages.report_of, request)

        state = await self._reporting.report(current_caller().agent(), report)

        return ReportStateResponse(state=messages.state_number(state))

    async def StreamReinit(
        self,
        request: StreamReinitRequest,
        context: ServicerContext[StreamReinitRequest, AsyncIterator[StreamReinitResponse]],
    ) -> AsyncIterator[StreamReinitResponse]:
        """Wait for a handover."""
        incarnation, attempt = await self._read(messages.stream_of, request)

        reinits = self._attaching.reinits(current_caller().agent(), incarnation=incarnation, attempt=attempt)

        async with aclosing(reinits):
            async for reinit in reinits:
                yield StreamReinitResponse(reinit=messages.reinit_message(reinit))

    async def _read(self, read: Callable[[Request], Value], request: Request) -> Value:
        """Read a request; what is wrong with it is told only to who has an agent's token."""
        try:
            return read(request)
        except Refusal:
            await self._admission.check(current_caller().agent())
            raise
