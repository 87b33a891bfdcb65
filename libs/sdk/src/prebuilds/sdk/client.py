"""The client for people and their programs: every method of every service, and the few steps that all would write."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from prebuilds.sdk.archives import pack_template
from prebuilds.sdk.channels import Tls, Token, open_channel
from prebuilds.sdk.errors import error_of, typed_errors
from prebuilds.sdk.retries import REPEAT_FOR, is_cut, make_request_id, repeat
from prebuilds.v1 import (
    admin_service_pb2,
    claim_pb2,
    claim_service_pb2,
    notification_service_pb2,
    pool_service_pb2,
    template_service_pb2,
    workspace_service_pb2,
)
from prebuilds.v1.admin_service_pb2_grpc import AdminServiceStub
from prebuilds.v1.claim_service_pb2_grpc import ClaimServiceStub
from prebuilds.v1.notification_service_pb2_grpc import NotificationServiceStub
from prebuilds.v1.pool_service_pb2_grpc import PoolServiceStub
from prebuilds.v1.template_service_pb2_grpc import TemplateServiceStub
from prebuilds.v1.workspace_service_pb2_grpc import WorkspaceServiceStub

RequestT_contra = TypeVar("RequestT_contra", bound=Message, contravariant=True)
ResponseT = TypeVar("ResponseT")
ResponseT_co = TypeVar("ResponseT_co", covariant=True)

CALL_TIMEOUT: Final = timedelta(seconds=20)
"""How long one attempt of a call may take unless the caller says otherwise."""

_LONGEST_PAUSE: Final = 5.0
_STEADY: Final = 30.0
_RECONCILER_SERVICES: Final = (template_service_pb2, pool_service_pb2, admin_service_pb2)
_CLAIMS_SERVICES: Final = (workspace_service_pb2, claim_service_pb2, notification_service_pb2)


class Method(Protocol[RequestT_contra, ResponseT_co]):
    """A unary method of a stub."""

    def __call__(self, request: RequestT_contra, /, *, timeout: float | None = None) -> Awaitable[ResponseT_co]:
        """Call it; `timeout` in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class PrebuildsClient:
    """The stubs of all services, which raise `grpc.aio.AioRpcError`, and methods, which raise PrebuildsError."""

    templates: TemplateServiceStub
    pools: PoolServiceStub
    admin: AdminServiceStub
    workspaces: WorkspaceServiceStub
    claims: ClaimServiceStub
    notifications: NotificationServiceStub

    async def call(
        self,
        method: Method[RequestT_contra, ResponseT],
        request: RequestT_contra,
        *,
        timeout: timedelta = CALL_TIMEOUT,
        repeat_for: timedelta = REPEAT_FOR,
    ) -> ResponseT:
        """Call any unary method: `await client.call(client.pools.GetPool, GetPoolRequest(...))`.

        A request that can bear a request id gets one where it has none, and is repeated for `repeat_for` while servers
        are away or busy: that is safe, it is done once. Others are called once. `timeout` is that of one attempt.
        """
        if "request_id" not in request.DESCRIPTOR.fields_by_name:
            with typed_errors():
                return await method(request, timeout=timeout.total_seconds())
        own: Any = type(request)()
        own.CopyFrom(request)
        own.request_id = own.request_id or make_request_id()
        return await repeat(lambda: method(own, timeout=timeout.total_seconds()), limit=repeat_for)

    async def create_workspace(
        self,
        organization: str,
        template: str,
        *,
        preset: str = "",
        parameters: Mapping[str, str] | None = None,
        name: str = "",
        owner: str = "",
        mode: claim_pb2.ClaimMode.ValueType = claim_pb2.CLAIM_MODE_UNSPECIFIED,
        wait: workspace_service_pb2.WaitPolicy | None = None,
        request_id: str = "",
        repeat_for: timedelta = REPEAT_FOR,
    ) -> workspace_service_pb2.CreateWorkspaceResponse:
        """Claim or build a workspace, once, however often the call has to be repeated.

        The arguments are the request's fields. `repeat_for` counts beyond the time that the request is willing to wait.
        """
        request = workspace_service_pb2.CreateWorkspaceRequest(
            organization=organization,
            template=template,
            preset=preset,
            parameters=dict(parameters or {}),
            name=name,
            owner=owner,
            mode=mode,
            wait=wait,
            request_id=request_id,
        )
        waits = wait.max_wait.ToTimedelta() if wait is not None else timedelta(0)
        return await self.call(
            self.workspaces.CreateWorkspace, request, timeout=CALL_TIMEOUT + waits, repeat_for=repeat_for + waits
        )

    async def push_template(
        self,
        folder: Path,
        organization: str,
        *,
        template: str = "",
        version_name: str = "",
        activate: bool = False,
        validate_only: bool = False,
    ) -> template_service_pb2.PushTemplateVersionResponse:
        """Pack a folder and push it as a new version; raises ArchiveError for a folder that cannot be a template.

        What the server finds wrong with it is in the error's `violations`, all of it at once.
        """
        request = template_service_pb2.PushTemplateVersionRequest(
            organization=organization,
            template=template,
            archive=await asyncio.to_thread(pack_template, folder),
            version_name=version_name,
            activate=activate,
            validate_only=validate_only,
        )
        return await self.call(self.templates.PushTemplateVersion, request)

    async def watch_workspace(
        self,
        workspace_id: str,
        *,
        give_up_after: timedelta = timedelta(minutes=5),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> AsyncGenerator[workspace_service_pb2.WatchWorkspaceResponse]:
        """Yield a workspace's states until what was begun has come to its end; a cut is healed and nothing missed.

        Raises PrebuildsError: BUILD_FAILED, BUILD_CANCELED, STARTUP_FAILED after the last state; any other refusal; or
        what cut it off, once the server could not be reached for `give_up_after`.
        """
        request = workspace_service_pb2.WatchWorkspaceRequest(id=workspace_id)
        failures = 0
        last_good = time.monotonic()
        while True:
            began = time.monotonic()
            call = self.workspaces.WatchWorkspace(request)
            try:
                async for state in call:
                    failures, last_good = 0, time.monotonic()
                    request.resume_token = state.resume_token
                    yield state
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure)
                if time.monotonic() - began >= _STEADY:
                    failures, last_good = 0, time.monotonic()
                tried_for = time.monotonic() - last_good
                if not is_cut(error) or tried_for >= give_up_after.total_seconds():
                    raise error from failure
                failures += 1
                await sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.1 * 2**failures)))  # noqa: S311 - spreads callers
            else:
                return
            finally:
                call.cancel()

    async def wait_for_workspace(self, workspace_id: str) -> workspace_service_pb2.WatchWorkspaceResponse:
        """Wait until what was begun has come to its end, and answer the last state; raises as `watch_workspace`."""
        last = workspace_service_pb2.WatchWorkspaceResponse()
        async with aclosing(self.watch_workspace(workspace_id)) as states:
            async for state in states:
                last = state
        return last


@asynccontextmanager
async def open_client(
    *, reconciler: str, claims: str, token: Token | None = None, tls: Tls | None = None
) -> AsyncGenerator[PrebuildsClient]:
    """Open the client: `reconciler` serves templates, pools and administration, `claims` workspaces and claims.

    Both may be one address, that of a proxy before them. Nothing is connected before the first call.
    """
    async with AsyncExitStack() as stack:
        of_reconciler = list(_RECONCILER_SERVICES)
        of_claims = list(_CLAIMS_SERVICES)
        if reconciler == claims:
            of_reconciler = of_claims = [*of_reconciler, *of_claims]

        async def connect(address: str, modules: list[Any]) -> grpc.aio.Channel:
            services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
            return await stack.enter_async_context(open_channel(address, token=token, tls=tls, services=services))

        to_reconciler = await connect(reconciler, of_reconciler)
        to_claims = to_reconciler if claims == reconciler else await connect(claims, of_claims)
        yield PrebuildsClient(
            templates=TemplateServiceStub(to_reconciler),
            pools=PoolServiceStub(to_reconciler),
            admin=AdminServiceStub(to_reconciler),
            workspaces=WorkspaceServiceStub(to_claims),
            claims=ClaimServiceStub(to_claims),
            notifications=NotificationServiceStub(to_claims),
        )
