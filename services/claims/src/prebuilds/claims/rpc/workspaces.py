"""The servicer of `WorkspaceService`.

Not built yet, and answered with UNIMPLEMENTED: BatchCreateWorkspaces, UpdateWorkspace, WatchBuildLogs, mode WAIT (but
for `validate_only`), and calls of services with a lifecycle check.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import read_id
from prebuilds.chassis.paging import read_page
from prebuilds.claims.creating import Creations
from prebuilds.claims.queries.filters import BuildFilter, WorkspaceFilter
from prebuilds.claims.reading import Reading
from prebuilds.claims.rpc.fields import WorkspaceFields, named_by, person_by
from prebuilds.claims.rpc.messages import (
    build_message,
    claim_message,
    creation_message,
    forecast_message,
    workspace_message,
)
from prebuilds.claims.rules.positions import Position
from prebuilds.claims.rules.standing import WorkspaceStatus, standings_of
from prebuilds.claims.transitions import Change, Transitions
from prebuilds.claims.watching import Watching
from prebuilds.claims.wishes import Wish
from prebuilds.domain.builds import BuildReason, JobStatus, Transition
from prebuilds.domain.claims import ClaimMode
from prebuilds.domain.ids import BuildId, WorkspaceId
from prebuilds.domain.principals import Service
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.v1 import claim_pb2
from prebuilds.v1 import workspace_service_pb2 as pb
from prebuilds.v1.workspace_service_pb2_grpc import WorkspaceServiceServicer

_Context = grpc.aio.ServicerContext[Any, Any]

_MODES: Final = {
    claim_pb2.CLAIM_MODE_UNSPECIFIED: ClaimMode.PREFER_WARM,
    claim_pb2.CLAIM_MODE_PREFER_WARM: ClaimMode.PREFER_WARM,
    claim_pb2.CLAIM_MODE_REQUIRE_WARM: ClaimMode.REQUIRE_WARM,
    claim_pb2.CLAIM_MODE_WAIT: ClaimMode.WAIT,
    claim_pb2.CLAIM_MODE_COLD: ClaimMode.COLD,
}
_WORKSPACE_FILTER: Final = ("name", "owner", "template", "preset", "status", "dormant", "is_prebuild")
_BUILD_FILTER: Final = ("transition", "status", "reason")
_ANY: Final = "any"


class Workspaces(WorkspaceServiceServicer):
    """What developers do with workspaces."""

    def __init__(self, creations: Creations, transitions: Transitions, reading: Reading, watching: Watching) -> None:
        """Read requests for these."""
        self._creations = creations
        self._transitions = transitions
        self._reading = reading
        self._watching = watching

    async def CreateWorkspace(
        self, request: pb.CreateWorkspaceRequest, context: _Context
    ) -> pb.CreateWorkspaceResponse:
        """Claim a prebuild or build cold."""
        wish = _wish(request)
        if wish.validate_only:
            return forecast_message(await self._creations.forecast(current_caller(), wish))
        return creation_message(await self._creations.create(current_caller(), wish))

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: _Context) -> pb.GetWorkspaceResponse:
        """Give one workspace."""
        workspace_id = WorkspaceId(read_id(request.id))
        workspace = await self._reading.workspace(current_caller(), workspace_id)
        return pb.GetWorkspaceResponse(workspace=workspace_message(workspace))

    async def ListWorkspaces(self, request: pb.ListWorkspacesRequest, context: _Context) -> pb.ListWorkspacesResponse:
        """Give a page of workspaces."""
        fields = WorkspaceFields()
        organization = fields.named("organization", request.organization)
        page = read_page(fields, request, Position.read)
        wanted = _workspace_filter(fields, request)
        fields.done()
        listed = await self._reading.workspaces(current_caller(), organization, wanted, page)
        return pb.ListWorkspacesResponse(
            workspaces=[workspace_message(workspace) for workspace in listed.things], next_page_token=listed.next_token
        )

    async def StartWorkspace(self, request: pb.StartWorkspaceRequest, context: _Context) -> pb.StartWorkspaceResponse:
        """Queue a start build."""
        fields = WorkspaceFields()
        change = Change(
            _changed_id(fields, request),
            Transition.START,
            fields.request_id(request.request_id),
            version=fields.named_at_will("version", request.version),
            parameters=fields.parameters(request.parameters),
        )
        fields.done()
        changed = await self._transitions.change(current_caller(), change)
        return pb.StartWorkspaceResponse(
            workspace=workspace_message(changed.workspace), build=build_message(changed.build)
        )

    async def StopWorkspace(self, request: pb.StopWorkspaceRequest, context: _Context) -> pb.StopWorkspaceResponse:
        """Queue a stop build."""
        fields = WorkspaceFields()
        change = Change(_changed_id(fields, request), Transition.STOP, fields.request_id(request.request_id))
        fields.done()
        changed = await self._transitions.change(current_caller(), change)
        return pb.StopWorkspaceResponse(
            workspace=workspace_message(changed.workspace), build=build_message(changed.build)
        )

    async def DeleteWorkspace(
        self, request: pb.DeleteWorkspaceRequest, context: _Context
    ) -> pb.DeleteWorkspaceResponse:
        """Queue a delete build."""
        fields = WorkspaceFields()
        change = Change(_changed_id(fields, request), Transition.DELETE, fields.request_id(request.request_id))
        fields.done()
        changed = await self._transitions.change(current_caller(), change)
        return pb.DeleteWorkspaceResponse(
            workspace=workspace_message(changed.workspace), build=build_message(changed.build)
        )

    async def CancelBuild(self, request: pb.CancelBuildRequest, context: _Context) -> pb.CancelBuildResponse:
        """Cancel a build that waits, or ask its daemon to give it up."""
        build_id = BuildId(read_id(request.id))
        build = await self._transitions.cancel(current_caller(), build_id)
        return pb.CancelBuildResponse(build=build_message(build))

    async def WatchWorkspace(
        self, request: pb.WatchWorkspaceRequest, context: _Context
    ) -> AsyncGenerator[pb.WatchWorkspaceResponse]:
        """Stream a workspace until what was begun has come to its end."""
        workspace_id = WorkspaceId(read_id(request.id))
        async for sight in self._watching.watch(current_caller(), workspace_id, request.resume_token):
            claim = sight.workspace.claim
            yield pb.WatchWorkspaceResponse(
                workspace=workspace_message(sight.workspace),
                claim=None if claim is None else claim_message(claim),
                resume_token=sight.token,
            )

    async def ListBuilds(self, request: pb.ListBuildsRequest, context: _Context) -> pb.ListBuildsResponse:
        """Give a page of a workspace's builds."""
        fields = WorkspaceFields()
        organization = fields.named("organization", request.organization)
        workspace_id = WorkspaceId(fields.id("workspace_id", request.workspace_id))
        page = read_page(fields, request, Position.read)
        values = fields.filter(request.filter, _BUILD_FILTER)
        wanted = BuildFilter(
            workspace_id,
            transition=values.word("transition", Transition),
            status=values.word("status", JobStatus),
            reason=values.word("reason", BuildReason),
        )
        fields.done()
        listed = await self._reading.builds(current_caller(), organization, wanted, page)
        return pb.ListBuildsResponse(
            builds=[build_message(build) for build in listed.things], next_page_token=listed.next_token
        )


def _wish(request: pb.CreateWorkspaceRequest) -> Wish:
    fields = WorkspaceFields()
    wish = Wish(
        organization=fields.named("organization", request.organization),
        template=fields.named("template", request.template),
        preset=fields.named_at_will("preset", request.preset),
        parameters=fields.parameters(request.parameters),
        name=fields.name("name", request.name) if request.name else "",
        owner=fields.named_at_will("owner", request.owner),
        mode=_MODES.get(request.mode, ClaimMode.PREFER_WARM),
        ttl=fields.ttl(request.ttl if request.HasField("ttl") else None),
        autostart=fields.autostart(request.autostart_schedule if request.HasField("autostart_schedule") else None),
        request_id=fields.request_id(request.request_id),
        validate_only=request.validate_only,
    )
    if request.mode not in _MODES:
        fields.wrong("mode", "is not a mode")
    if request.HasField("wait") and wish.mode is not ClaimMode.WAIT:
        fields.wrong("wait", "is allowed with mode WAIT only")
    fields.done()
    if wish.mode is ClaimMode.WAIT and not wish.validate_only:
        raise Refusal(Reason.METHOD_NOT_BUILT, "mode WAIT is not built yet")
    return wish


def _workspace_filter(fields: WorkspaceFields, request: pb.ListWorkspacesRequest) -> WorkspaceFilter:
    values = fields.filter(request.filter, _WORKSPACE_FILTER)
    status = values.word("status", WorkspaceStatus)
    any_kind = values.text("is_prebuild") == _ANY
    is_prebuild = None if any_kind else values.truth("is_prebuild") or False
    return WorkspaceFilter(
        show_deleted=request.show_deleted,
        name=values.text("name"),
        owner=person_by(values, "owner"),
        template=named_by(values, "template"),
        preset_id=values.id("preset"),
        standings=None if status is None else standings_of(status),
        dormant=values.truth("dormant"),
        is_prebuild=is_prebuild,
    )


def _changed_id(
    fields: WorkspaceFields, request: pb.StartWorkspaceRequest | pb.StopWorkspaceRequest | pb.DeleteWorkspaceRequest
) -> WorkspaceId:
    """Read which workspace a person changes; the lifecycle executor's calls are not built yet."""
    if isinstance(current_caller().principal, Service):
        raise Refusal(Reason.METHOD_NOT_BUILT, "changes by lifecycle rules are not built yet")
    if request.HasField("lifecycle_check"):
        fields.wrong("lifecycle_check", "is for services only")
    return WorkspaceId(fields.id("id", request.id))
