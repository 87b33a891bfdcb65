"""AdminService: organisations and their members."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.paging import by_name, by_name_and_id, read_page
from prebuilds.domain.principals import Role
from prebuilds.reconciler.administering import Administering, OrganizationOrder
from prebuilds.reconciler.members import MemberFilter, MemberOrder, Members
from prebuilds.reconciler.rpc.admin_messages import member_message, organization_message, roles_of
from prebuilds.v1 import admin_service_pb2 as pb
from prebuilds.v1.admin_service_pb2_grpc import AdminServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_MAX_DISPLAY_NAME: Final = 64


class OrganizationMethods(AdminServiceServicer):
    """Organisations and their members."""

    _administering: Administering
    _members: Members

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: Context
    ) -> pb.CreateOrganizationResponse:
        """Make an organisation."""
        fields = Fields()
        order = OrganizationOrder(
            name=fields.name("organization.name", request.organization.name),
            display_name=_display_name(fields, request.organization.display_name),
            request_id=fields.request_id(request.request_id),
        )
        fields.done()

        row = await self._administering.create(current_caller(), order)

        return pb.CreateOrganizationResponse(organization=organization_message(row))

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Context) -> pb.GetOrganizationResponse:
        """Answer one organisation."""
        fields = Fields()
        named = fields.required("id", request.id)
        fields.done()

        row = await self._administering.get(current_caller(), named)

        return pb.GetOrganizationResponse(organization=organization_message(row))

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Context
    ) -> pb.ListOrganizationsResponse:
        """Answer the caller's organisations, by name."""
        fields = Fields()
        conditions = fields.filter(request.filter, ("name",))
        page = read_page(fields, request, by_name)
        fields.done()

        listed = await self._administering.list(current_caller(), conditions.text("name"), page)

        return pb.ListOrganizationsResponse(
            organizations=map(organization_message, listed.things), next_page_token=listed.next_token
        )

    async def UpdateOrganization(
        self, request: pb.UpdateOrganizationRequest, context: Context
    ) -> pb.UpdateOrganizationResponse:
        """Change what the mask names of an organisation."""
        fields, organization = Fields(), request.organization
        organization_id = fields.id("organization.id", organization.id)
        named = fields.mask(request.update_mask.paths, ("name", "display_name"))
        values: dict[str, str] = {}
        if "name" in named:
            values["name"] = fields.name("organization.name", organization.name)
        if "display_name" in named:
            values["display_name"] = _display_name(fields, organization.display_name)
        fields.done()

        row = await self._administering.update(current_caller(), organization_id, values)

        return pb.UpdateOrganizationResponse(organization=organization_message(row))

    async def DeleteOrganization(
        self, request: pb.DeleteOrganizationRequest, context: Context
    ) -> pb.DeleteOrganizationResponse:
        """Delete an organisation without workspaces."""
        organization_id = read_id(request.id)

        await self._administering.delete(current_caller(), organization_id)

        return pb.DeleteOrganizationResponse()

    async def CreateMember(self, request: pb.CreateMemberRequest, context: Context) -> pb.CreateMemberResponse:
        """Make a user a member."""
        fields = Fields()
        roles = roles_of(request.roles)
        fields.check("roles", "must be valid, each once", is_good=roles is not None)
        order = MemberOrder(
            organization=fields.required("organization", request.organization),
            user=fields.required("user", request.user),
            roles=roles or [Role.MEMBER],
            request_id=fields.request_id(request.request_id),
        )
        fields.done()

        row = await self._members.create(current_caller(), order)

        return pb.CreateMemberResponse(member=member_message(row))

    async def GetMember(self, request: pb.GetMemberRequest, context: Context) -> pb.GetMemberResponse:
        """Answer one member."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        user = fields.required("user", request.user)
        fields.done()

        row = await self._members.get(current_caller(), organization, user)

        return pb.GetMemberResponse(member=member_message(row))

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        """Answer the members of an organisation, by name."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        conditions = fields.filter(request.filter, ("name", "role", "group"))
        wanted = MemberFilter(
            name=conditions.text("name"),
            role=conditions.word("role", Role),
            group=conditions.text("group"),
            show_system=request.show_system,
        )
        page = read_page(fields, request, by_name_and_id)
        fields.done()

        listed = await self._members.list(current_caller(), organization, wanted, page)

        return pb.ListMembersResponse(members=map(member_message, listed.things), next_page_token=listed.next_token)

    async def UpdateMember(self, request: pb.UpdateMemberRequest, context: Context) -> pb.UpdateMemberResponse:
        """Change a member's roles."""
        fields, member = Fields(), request.member
        organization_id = fields.id("member.organization_id", member.organization_id)
        user_id = fields.id("member.user_id", member.user_id)
        fields.mask(request.update_mask.paths, ("roles",))
        roles = roles_of(member.roles)
        fields.check("member.roles", "must be at least one, valid, each once", is_good=bool(roles))
        fields.done()

        row = await self._members.update(current_caller(), organization_id, user_id, roles or [])

        return pb.UpdateMemberResponse(member=member_message(row))

    async def DeleteMember(self, request: pb.DeleteMemberRequest, context: Context) -> pb.DeleteMemberResponse:
        """End a membership."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        user = fields.required("user", request.user)
        fields.done()

        await self._members.delete(current_caller(), organization, user)

        return pb.DeleteMemberResponse()


def _display_name(fields: Fields, text: str) -> str:
    return fields.at_most("organization.display_name", text, _MAX_DISPLAY_NAME)
