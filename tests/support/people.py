"""People of an organisation: known, made members with stored roles, and calling with the roles of their tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from prebuilds.domain.principals import Role
from prebuilds.v1 import admin_pb2
from prebuilds.v1 import admin_service_pb2 as pb
from tests.support.reconciling import ORGANIZATION, Client, Reconcilers

ISSUER = "prebuilds"
"""Of the tokens of tests."""

ROLES = {
    Role.MEMBER: admin_pb2.ROLE_MEMBER,
    Role.TEMPLATE_ADMIN: admin_pb2.ROLE_TEMPLATE_ADMIN,
    Role.AUDITOR: admin_pb2.ROLE_AUDITOR,
    Role.OWNER: admin_pb2.ROLE_OWNER,
}


@dataclass
class Team:
    """The organisation `acme`, an operator, who is its first owner, and whoever a test asks for."""

    reconcilers: Reconcilers
    address: str
    operator: Client
    organization: admin_pb2.Organization

    async def user(self, name: str) -> admin_pb2.User:
        """Make somebody known."""
        user = admin_pb2.User(name=name, issuer=ISSUER, subject=name)
        created = await self.operator.admin.CreateUser(pb.CreateUserRequest(user=user), metadata=self.operator.metadata)
        return created.user

    async def member(self, name: str, *roles: Role, at: str = ORGANIZATION) -> admin_pb2.Member:
        """Make somebody known, and a member."""
        user = await self.user(name)
        request = pb.CreateMemberRequest(organization=at, user=user.id, roles=[ROLES[role] for role in roles])
        created = await self.operator.admin.CreateMember(request, metadata=self.operator.metadata)
        return created.member

    async def client(self, name: str, *roles: Role, at: str = ORGANIZATION) -> Client:
        """Let somebody call, whose token has these roles."""
        return await self.reconcilers.client(self.address, operator=False, name=name, roles=roles, at=at)

    async def get_member(self, name: str) -> admin_pb2.Member:
        """The member as stored."""
        request = pb.GetMemberRequest(organization=ORGANIZATION, user=name)
        return (await self.operator.admin.GetMember(request, metadata=self.operator.metadata)).member

    async def members(self, *, show_system: bool = False) -> Sequence[str]:
        """The names of the members."""
        request = pb.ListMembersRequest(organization=ORGANIZATION, show_system=show_system)
        listed = await self.operator.admin.ListMembers(request, metadata=self.operator.metadata)
        return [member.user_name for member in listed.members]

    async def group(self, name: str, allowance: int | None = None) -> admin_pb2.Group:
        """Make a group."""
        group = admin_pb2.Group(name=name, quota_allowance=allowance)
        request = pb.CreateGroupRequest(organization=ORGANIZATION, group=group)
        return (await self.operator.admin.CreateGroup(request, metadata=self.operator.metadata)).group

    async def groups(self, **fields: Any) -> Mapping[str, admin_pb2.Group]:
        """The groups by name."""
        request = pb.ListGroupsRequest(organization=ORGANIZATION, **fields)
        listed = await self.operator.admin.ListGroups(request, metadata=self.operator.metadata)
        return {group.name: group for group in listed.groups}

    async def deeds(self, action: str) -> Sequence[tuple[str, dict[str, Any]]]:
        """What was done with that action, oldest first: the name of what it was done to, and the details."""
        request = pb.ListAuditEventsRequest(filter=f"action={action}")
        listed = await self.operator.admin.ListAuditEvents(request, metadata=self.operator.metadata)
        return [(event.resource_name, MessageToDict(event.details)) for event in reversed(listed.audit_events)]


@pytest_asyncio.fixture
async def team(reconcilers: Reconcilers) -> AsyncIterator[Team]:
    """The organisation `acme` at a running reconciler."""
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    yield Team(reconcilers, address, operator, await operator.make_organization())
