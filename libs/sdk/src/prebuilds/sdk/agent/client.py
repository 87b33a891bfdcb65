"""The three calls of an agent to its gateway."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Protocol

import grpc
import grpc.aio

from prebuilds.domain.agents import AgentState
from prebuilds.domain.refusals import Reason
from prebuilds.sdk.channels import Tls, Token, open_plain_channel, outfit
from prebuilds.sdk.errors import PrebuildsError, typed_errors
from prebuilds.v1 import agent_gateway_service_pb2, agent_pb2
from prebuilds.v1.agent_gateway_service_pb2_grpc import AgentGatewayServiceStub

CALL_TIMEOUT: Final = timedelta(seconds=10)
MAX_ERROR_LENGTH: Final = 4096
"""Longest error that a report carries, in bytes of UTF-8; its end is what is kept."""


class Gateway(Protocol):
    """What an agent needs of its gateway; each call raises PrebuildsError."""

    async def get_manifest(self, process: str, entry: int) -> agent_pb2.Manifest:
        """Begin an incarnation: the manifest it runs by. Asking again with the same numbers changes nothing."""
        ...

    async def report_state(
        self, incarnation: int, state: AgentState, error: str = "", *, timeout: timedelta = CALL_TIMEOUT
    ) -> None:
        """Say how far the incarnation is."""
        ...

    def stream_reinit(self, incarnation: int, attempt: int) -> AsyncGenerator[agent_pb2.Reinit]:
        """Wait for handovers; ends when nothing will follow. Close it (`aclosing`) to leave."""
        ...


class AgentClient:
    """A gateway over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, token: Token) -> None:
        """`channel` comes from `open_plain_channel`; `token` may be what reads it from a file at every call."""
        self._stub = AgentGatewayServiceStub(channel)
        self._token = token

    async def get_manifest(self, process: str, entry: int) -> agent_pb2.Manifest:
        """See Gateway."""
        request = agent_gateway_service_pb2.GetManifestRequest(process=process, entry=entry)
        with typed_errors():
            answer = await self._stub.GetManifest(
                request, timeout=CALL_TIMEOUT.total_seconds(), metadata=self._metadata()
            )
        return answer.manifest

    async def report_state(
        self, incarnation: int, state: AgentState, error: str = "", *, timeout: timedelta = CALL_TIMEOUT
    ) -> None:
        """See Gateway."""
        request = agent_gateway_service_pb2.ReportStateRequest(
            incarnation=incarnation, state=_STATES[state], error=_cut(error)
        )
        with typed_errors():
            await self._stub.ReportState(request, timeout=timeout.total_seconds(), metadata=self._metadata())

    async def stream_reinit(self, incarnation: int, attempt: int) -> AsyncGenerator[agent_pb2.Reinit]:
        """See Gateway."""
        request = agent_gateway_service_pb2.StreamReinitRequest(incarnation=incarnation, attempt=attempt)
        call = self._stub.StreamReinit(request, metadata=self._metadata())
        try:
            with typed_errors():
                async for answer in call:
                    yield answer.reinit
        finally:
            call.cancel()

    def _metadata(self) -> grpc.aio.Metadata:
        try:
            return outfit(grpc.aio.Metadata(), self._token)
        except (OSError, ValueError) as error:
            # As if the gateway had said so: a token that cannot be read now may be there later.
            raise PrebuildsError(
                grpc.StatusCode.UNAUTHENTICATED,
                f"the token cannot be read: {error}",
                reason_name=Reason.CREDENTIALS_MISSING,
            ) from error


@asynccontextmanager
async def open_agent_client(address: str, *, token: Token, tls: Tls | None = None) -> AsyncGenerator[AgentClient]:
    """Open a client to the gateway at that address (see `channels`); connects at the first call."""
    async with open_plain_channel(address, tls=tls) as channel:
        yield AgentClient(channel, token)


_STATES: Final = {state: agent_pb2.AgentState.Value(f"AGENT_STATE_{state.name}") for state in AgentState}


def _cut(error: str) -> str:
    # What a script prints may hold NUL, which no server takes; a report that is refused would never arrive.
    return error.replace("\0", "\N{REPLACEMENT CHARACTER}").encode()[-MAX_ERROR_LENGTH:].decode(errors="ignore")
