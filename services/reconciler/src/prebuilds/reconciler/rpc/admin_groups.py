"""AdminService: groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.paging import by_name, read_page
from prebuilds.reconciler.groups import GroupFilter, GroupOrder, Groups
from prebuilds.reconciler.rpc.admin_messages import group_message
from prebuilds.v1 import admin_pb2
from prebuilds.v1 import admin_service_pb2 as pb
from prebuilds.v1.admin_service_pb2_grpc import AdminServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_MAX_USERS: Final = 500


class GroupMethods(AdminServiceServicer):
    """Groups with their allowance."""

    _groups: Groups

    async def CreateGroup(self, request: pb.CreateGroupRequest, context: Context) -> pb.CreateGroupResponse:
        """Make a group."""
        fields = Fields()
        order = GroupOrder(
            organization=fields.required("organization", request.organization),
            name=fields.name("group.name", request.group.name),
            quota_allowance=_allowance(fields, request.group),
            request_id=fields.request_id(request.request_id),
        )
        fields.done()

        row = await self._groups.create(current_caller(), order)

        return pb.CreateGroupResponse(group=group_message(row))

    async def GetGroup(self, request: pb.GetGroupRequest, context: Context) -> pb.GetGroupResponse:
        """Answer one group."""
        group_id = read_id(request.id)

        row = await self._groups.get(current_caller(), group_id)

        return pb.GetGroupResponse(group=group_message(row))

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Context) -> pb.ListGroupsResponse:
        """Answer the groups of an organisation, by name."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        conditions = fields.filter(request.filter, ("name", "user"))
        wanted = GroupFilter(name=conditions.text("name"), user=conditions.text("user"))
        page = read_page(fields, request, by_name)
        fields.done()

        listed = await self._groups.list(current_caller(), organization, wanted, page)

        return pb.ListGroupsResponse(groups=map(group_message, listed.things), next_page_token=listed.next_token)

    async def UpdateGroup(self, request: pb.UpdateGroupRequest, context: Context) -> pb.UpdateGroupResponse:
        """Change what the mask names of a group."""
        fields, group = Fields(), request.group
        group_id = fields.id("group.id", group.id)
        named = fields.mask(request.update_mask.paths, ("name", "quota_allowance"))
        values: dict[str, str | int | None] = {}
        if "name" in named:
            values["name"] = fields.name("group.name", group.name)
        if "quota_allowance" in named:
            values["quota_allowance"] = _allowance(fields, group)
        fields.done()

        row = await self._groups.update(current_caller(), group_id, values)

        return pb.UpdateGroupResponse(group=group_message(row))

    async def DeleteGroup(self, request: pb.DeleteGroupRequest, context: Context) -> pb.DeleteGroupResponse:
        """Delete a group."""
        group_id = read_id(request.id)

        await self._groups.delete(current_caller(), group_id)

        return pb.DeleteGroupResponse()

    async def AddGroupMembers(self, request: pb.AddGroupMembersRequest, context: Context) -> pb.AddGroupMembersResponse:
        """Put people into a group."""
        fields = Fields()
        group_id = fields.id("id", request.id)
        users = _users(fields, request.users)
        fields.done()

        row = await self._groups.add_members(current_caller(), group_id, users)

        return pb.AddGroupMembersResponse(group=group_message(row))

    async def RemoveGroupMembers(
        self, request: pb.RemoveGroupMembersRequest, context: Context
    ) -> pb.RemoveGroupMembersResponse:
        """Take people out of a group."""
        fields = Fields()
        group_id = fields.id("id", request.id)
        users = _users(fields, request.users)
        fields.done()

        row = await self._groups.remove_members(current_caller(), group_id, users)

        return pb.RemoveGroupMembersResponse(group=group_message(row))


def _allowance(fields: Fields, group: admin_pb2.Group) -> int | None:
    if not group.HasField("quota_allowance"):
        return None
    fields.check("group.quota_allowance", "must not be negative", is_good=group.quota_allowance >= 0)
    return group.quota_allowance


def _users(fields: Fields, users: Sequence[str]) -> Sequence[str]:
    fields.check("users", f"must be 1 to {_MAX_USERS}", is_good=0 < len(users) <= _MAX_USERS)
    return [fields.required(f"users[{index}]", text) for index, text in enumerate(users[:_MAX_USERS])]
