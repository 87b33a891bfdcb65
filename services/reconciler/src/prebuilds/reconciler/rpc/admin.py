"""AdminService."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.paging import by_name, by_name_and_id, read_page
from prebuilds.domain.principals import Role
from prebuilds.reconciler.administering import (
    Administering,
    MemberOrder,
    OrganizationOrder,
)
from prebuilds.reconciler.keys import KeyOrder, Keys
from prebuilds.reconciler.reading import AdminReading, KeyFilter, MemberFilter
from prebuilds.reconciler.rpc.messages import key_message, member_message, organization_message, roles_of
from prebuilds.v1 import admin_service_pb2 as pb
from prebuilds.v1.admin_service_pb2_grpc import AdminServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_MAX_TAGS: Final = 20
_MAX_TAG: Final = 64


class AdminServicer(AdminServiceServicer):
    """Organisations, their people and their keys."""

    def __init__(self, administering: Administering, keys: Keys, reading: AdminReading) -> None:
        """Reads requests for these."""
        self._administering = administering
        self._keys = keys
        self._reading = reading

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: Context
    ) -> pb.CreateOrganizationResponse:
        """Make an organisation."""
        fields = Fields()
        order = OrganizationOrder(
            name=fields.name("organization.name", request.organization.name),
            display_name=fields.at_most("organization.display_name", request.organization.display_name, 64),
            request_id=fields.request_id(request.request_id),
        )
        fields.done()

        row = await self._administering.create_organization(current_caller(), order)

        return pb.CreateOrganizationResponse(organization=organization_message(row))

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Context) -> pb.GetOrganizationResponse:
        """Answer one organisation."""
        organization_id = read_id(request.id)

        row = await self._reading.organization(current_caller(), organization_id)

        return pb.GetOrganizationResponse(organization=organization_message(row))

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Context
    ) -> pb.ListOrganizationsResponse:
        """Answer the caller's organisations, by name."""
        fields = Fields()
        conditions = fields.filter(request.filter, ("name",))
        page = read_page(fields, request, by_name)
        fields.done()

        listed = await self._reading.organizations(current_caller(), conditions.text("name"), page)

        return pb.ListOrganizationsResponse(
            organizations=map(organization_message, listed.things), next_page_token=listed.next_token
        )

    async def CreateMember(self, request: pb.CreateMemberRequest, context: Context) -> pb.CreateMemberResponse:
        """Make a user a member."""
        fields = Fields()
        roles = roles_of(request.roles)
        if roles is None:
            fields.wrong("roles", "must be valid, each once")
        order = MemberOrder(
            organization=fields.required("organization", request.organization),
            user=fields.required("user", request.user),
            roles=roles or [Role.MEMBER],
            request_id=fields.request_id(request.request_id),
        )
        fields.done()

        row = await self._administering.create_member(current_caller(), order)

        return pb.CreateMemberResponse(member=member_message(row))

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

        listed = await self._reading.members(current_caller(), organization, wanted, page)

        return pb.ListMembersResponse(members=map(member_message, listed.things), next_page_token=listed.next_token)

    async def CreateProvisionerKey(
        self, request: pb.CreateProvisionerKeyRequest, context: Context
    ) -> pb.CreateProvisionerKeyResponse:
        """Make a key for daemons."""
        fields, key = Fields(), request.provisioner_key
        order = KeyOrder(
            organization=request.organization,
            name=fields.name("provisioner_key.name", key.name),
            tags=dict(key.tags),
            request_id=fields.request_id(request.request_id),
        )
        if len(order.tags) > _MAX_TAGS:
            fields.wrong("provisioner_key.tags", f"must be at most {_MAX_TAGS}")
        for name, value in order.tags.items():
            field = f"provisioner_key.tags.{name[:_MAX_TAG]}"
            fields.required(field, name)
            fields.at_most(field, name, _MAX_TAG)
            fields.at_most(field, value, _MAX_TAG)
        fields.done()

        created = await self._keys.create(current_caller(), order)

        return pb.CreateProvisionerKeyResponse(provisioner_key=key_message(created.key), secret=created.secret)

    async def GetProvisionerKey(
        self, request: pb.GetProvisionerKeyRequest, context: Context
    ) -> pb.GetProvisionerKeyResponse:
        """Answer one key."""
        key_id = read_id(request.id)

        row = await self._reading.key(current_caller(), key_id)

        return pb.GetProvisionerKeyResponse(provisioner_key=key_message(row))

    async def ListProvisionerKeys(
        self, request: pb.ListProvisionerKeysRequest, context: Context
    ) -> pb.ListProvisionerKeysResponse:
        """Answer keys, by name."""
        fields = Fields()
        conditions = fields.filter(request.filter, ("name",))
        wanted = KeyFilter(name=conditions.text("name"), show_revoked=request.show_revoked)
        page = read_page(fields, request, by_name)
        fields.done()

        listed = await self._reading.keys(current_caller(), request.organization, wanted, page)

        return pb.ListProvisionerKeysResponse(
            provisioner_keys=map(key_message, listed.things), next_page_token=listed.next_token
        )

    async def RevokeProvisionerKey(
        self, request: pb.RevokeProvisionerKeyRequest, context: Context
    ) -> pb.RevokeProvisionerKeyResponse:
        """Make a key no longer good."""
        key_id = read_id(request.id)

        row = await self._keys.revoke(current_caller(), key_id)

        return pb.RevokeProvisionerKeyResponse(provisioner_key=key_message(row))
