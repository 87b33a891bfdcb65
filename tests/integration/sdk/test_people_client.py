from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from prebuilds.domain.refusals import Reason, Refusal, Violation
from prebuilds.sdk.archives import pack_template
from prebuilds.sdk.client import PrebuildsClient, open_client
from prebuilds.sdk.errors import PrebuildsError
from prebuilds.sdk.retries import is_passing
from prebuilds.v1 import pool_service_pb2, template_service_pb2, workspace_service_pb2
from prebuilds.v1.pool_service_pb2_grpc import PoolServiceServicer, add_PoolServiceServicer_to_server
from prebuilds.v1.template_service_pb2_grpc import TemplateServiceServicer, add_TemplateServiceServicer_to_server
from prebuilds.v1.workspace_service_pb2_grpc import WorkspaceServiceServicer, add_WorkspaceServiceServicer_to_server
from tests.support.scripted_gateway import abort

Context = grpc.aio.ServicerContext[Any, Any]

AWAY = Refusal(Reason.DEPENDENCY_UNAVAILABLE, "no database", retry_after=timedelta(milliseconds=1))
CONFLICT = Refusal(Reason.TRANSACTION_CONFLICT, "again")
DRAINING = Refusal(Reason.DRAINING, "shutting down")
STARTUP_FAILED = Refusal(Reason.STARTUP_FAILED, "the startup failed")


class Scripted:
    """What every call is refused with, one by one, before it is answered."""

    def __init__(self) -> None:
        self.refusals: deque[Refusal] = deque()
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str | bytes]] = []

    async def take(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        if self.refusals:
            await abort(context, self.refusals.popleft())


class Workspaces(WorkspaceServiceServicer):
    def __init__(self, script: Scripted) -> None:
        self._script = script
        self.states: deque[list[str | Refusal]] = deque()

    async def CreateWorkspace(
        self, request: workspace_service_pb2.CreateWorkspaceRequest, context: Context
    ) -> workspace_service_pb2.CreateWorkspaceResponse:
        await self._script.take(request, context)
        return workspace_service_pb2.CreateWorkspaceResponse()

    async def WatchWorkspace(
        self, request: workspace_service_pb2.WatchWorkspaceRequest, context: Context
    ) -> AsyncIterator[workspace_service_pb2.WatchWorkspaceResponse]:
        await self._script.take(request, context)
        for state in self.states.popleft():
            if isinstance(state, Refusal):
                await abort(context, state)
            yield workspace_service_pb2.WatchWorkspaceResponse(resume_token=state)


class Templates(TemplateServiceServicer):
    def __init__(self, script: Scripted) -> None:
        self._script = script

    async def PushTemplateVersion(
        self, request: template_service_pb2.PushTemplateVersionRequest, context: Context
    ) -> template_service_pb2.PushTemplateVersionResponse:
        await self._script.take(request, context)
        return template_service_pb2.PushTemplateVersionResponse()


class Pools(PoolServiceServicer):
    def __init__(self, script: Scripted) -> None:
        self._script = script

    async def GetPool(
        self, request: pool_service_pb2.GetPoolRequest, context: Context
    ) -> pool_service_pb2.GetPoolResponse:
        await self._script.take(request, context)
        return pool_service_pb2.GetPoolResponse()

    async def ReconcileNow(
        self, request: pool_service_pb2.ReconcileNowRequest, context: Context
    ) -> pool_service_pb2.ReconcileNowResponse:
        await self._script.take(request, context)
        return pool_service_pb2.ReconcileNowResponse()


@asynccontextmanager
async def open_scripted() -> AsyncGenerator[tuple[Scripted, Workspaces, PrebuildsClient]]:
    script = Scripted()
    # Methods that no test calls are those of the generated classes: UNIMPLEMENTED.
    workspaces = Workspaces(script)  # pyright: ignore[reportAbstractUsage] - what is not built yet
    templates = Templates(script)  # pyright: ignore[reportAbstractUsage] - what is not built yet
    pools = Pools(script)  # pyright: ignore[reportAbstractUsage] - what is not built yet
    server = grpc.aio.server()
    add_WorkspaceServiceServicer_to_server(workspaces, server)
    add_TemplateServiceServicer_to_server(templates, server)
    add_PoolServiceServicer_to_server(pools, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with open_client(reconciler=address, claims=address, token="ey.alice") as client:
            yield script, workspaces, client
    finally:
        await server.stop(None)


async def test_a_creation_is_repeated_under_one_request_id_until_it_is_answered() -> None:
    async with open_scripted() as (script, _, client):
        script.refusals.extend([AWAY, CONFLICT, DRAINING])
        await client.create_workspace("default", "python-dev", parameters={"size": "small"})
        assert len(script.requests) == 4
        assert len({request.request_id for request in script.requests}) == 1
        assert script.requests[0].request_id
        assert script.metadata[0]["authorization"] == "Bearer ey.alice"


async def test_two_creations_have_two_request_ids_and_ones_own_is_kept() -> None:
    async with open_scripted() as (script, _, client):
        await client.create_workspace("default", "python-dev")
        await client.create_workspace("default", "python-dev")
        await client.create_workspace("default", "python-dev", request_id="mine")
        first, second, third = (request.request_id for request in script.requests)
        assert first != second
        assert third == "mine"


@pytest.mark.parametrize("reason", [Reason.NAME_TAKEN, Reason.POOL_EMPTY, Reason.OVER_QUOTA, Reason.INTERNAL])
async def test_a_refusal_is_not_repeated(reason: Reason) -> None:
    async with open_scripted() as (script, _, client):
        script.refusals.append(Refusal(reason, "no", retry_after=timedelta(milliseconds=1)))
        with pytest.raises(PrebuildsError) as caught:
            await client.create_workspace("default", "python-dev")
        assert caught.value.reason is reason
        assert len(script.requests) == 1


async def test_repeating_ends_when_its_time_would_be_over() -> None:
    async with open_scripted() as (script, _, client):
        script.refusals.append(Refusal(Reason.DEPENDENCY_UNAVAILABLE, "no", retry_after=timedelta(hours=1)))
        with pytest.raises(PrebuildsError) as caught:
            await client.create_workspace("default", "python-dev", repeat_for=timedelta(minutes=1))
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert len(script.requests) == 1


async def test_reads_are_repeated_while_the_server_is_away() -> None:
    async with open_scripted() as (script, _, client):
        script.refusals.extend([DRAINING, DRAINING])
        await client.call(client.pools.GetPool, pool_service_pb2.GetPoolRequest())
        assert len(script.requests) == 3


async def test_what_changes_something_without_a_request_id_is_called_once() -> None:
    async with open_scripted() as (script, _, client):
        script.refusals.extend([DRAINING, DRAINING])
        with pytest.raises(PrebuildsError):
            await client.call(client.pools.ReconcileNow, pool_service_pb2.ReconcileNowRequest())
        assert len(script.requests) == 1


async def test_a_watch_that_is_cut_goes_on_from_the_last_state_it_saw() -> None:
    async with open_scripted() as (script, workspaces, client):
        workspaces.states.extend([["a", "b", DRAINING], [DRAINING], ["c"]])
        seen = [state.resume_token async for state in client.watch_workspace("w", sleep=_at_once)]
        assert seen == ["a", "b", "c"]
        assert [request.resume_token for request in script.requests] == ["", "b", "b"]


async def test_a_watch_ends_with_the_reason_why_there_will_be_no_workspace() -> None:
    async with open_scripted() as (_, workspaces, client):
        workspaces.states.append(["a", STARTUP_FAILED])
        states = client.watch_workspace("w")
        assert (await anext(states)).resume_token == "a"
        with pytest.raises(PrebuildsError) as caught:
            await anext(states)
        assert caught.value.reason is Reason.STARTUP_FAILED


async def test_a_watch_gives_up_when_the_server_stays_away() -> None:
    async with open_scripted() as (_, workspaces, client):
        workspaces.states.append([DRAINING])
        with pytest.raises(PrebuildsError) as caught:
            async for _state in client.watch_workspace("w", give_up_after=timedelta(0)):
                pass
        assert is_passing(caught.value)


async def test_waiting_answers_the_last_state() -> None:
    async with open_scripted() as (_, workspaces, client):
        workspaces.states.append(["a", "b"])
        assert (await client.wait_for_workspace("w")).resume_token == "b"


async def test_a_folder_is_pushed_as_its_archive(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text("name: python-dev\n")
    async with open_scripted() as (script, _, client):
        await client.push_template(tmp_path, "default", activate=True)
        pushed = script.requests[0]
        assert (pushed.organization, pushed.activate) == ("default", True)
        assert pushed.archive == pack_template(tmp_path)
        assert pushed.request_id


async def test_all_that_is_wrong_with_a_template_is_told(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text("nonsense: true\n")
    wrong = (Violation("name", "is missing"), Violation("nonsense", "is not known"))
    async with open_scripted() as (script, _, client):
        script.refusals.append(Refusal(Reason.INVALID_MANIFEST, "invalid", violations=wrong))
        with pytest.raises(PrebuildsError) as caught:
            await client.push_template(tmp_path, "default")
        assert caught.value.violations == wrong


async def _at_once(seconds: float) -> None:
    await asyncio.sleep(0)
