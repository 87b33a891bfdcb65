"""AdminService: users."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.paging import by_name_and_id, read_page
from prebuilds.domain.names import MAX_NAME_LENGTH, is_id
from prebuilds.reconciler.rpc.admin_messages import member_message, user_message
from prebuilds.reconciler.users import ME, UserFilter, UserOrder, Users
from prebuilds.v1 import admin_service_pb2 as pb
from prebuilds.v1.admin_service_pb2_grpc import AdminServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_MAX_CLAIM: Final = 255
"""Characters of an issuer or subject; of a subject that is the limit of OpenID Connect."""


class UserMethods(AdminServiceServicer):
    """Users."""

    _users: Users

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.CreateUserResponse:
        """Make a user known."""
        fields, user = Fields(), request.user
        order = UserOrder(
            name=_name(fields, user.name),
            issuer=_claim(fields, "user.issuer", user.issuer),
            subject=_claim(fields, "user.subject", user.subject),
            request_id=fields.request_id(request.request_id),
        )
        fields.done()

        row = await self._users.create(current_caller(), order)

        return pb.CreateUserResponse(user=user_message(row))

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        """Answer one user with memberships."""
        user_id = None if request.id == ME else read_id(request.id)

        row, memberships = await self._users.get(current_caller(), user_id)

        return pb.GetUserResponse(user=user_message(row), memberships=map(member_message, memberships))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        """Answer users, by name."""
        fields = Fields()
        organization = fields.optional("organization", request.organization)
        conditions = fields.filter(request.filter, ("name", "issuer", "subject"))
        wanted = UserFilter(
            name=conditions.text("name"),
            issuer=conditions.text("issuer"),
            subject=conditions.text("subject"),
            show_system=request.show_system,
            show_deleted=request.show_deleted,
        )
        page = read_page(fields, request, by_name_and_id)
        fields.done()

        listed = await self._users.list(current_caller(), organization, wanted, page)

        return pb.ListUsersResponse(users=map(user_message, listed.things), next_page_token=listed.next_token)

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        """Change a user's name."""
        fields, user = Fields(), request.user
        user_id = fields.id("user.id", user.id)
        fields.mask(request.update_mask.paths, ("name",))
        name = _name(fields, user.name)
        fields.done()

        row = await self._users.rename(current_caller(), user_id, name)

        return pb.UpdateUserResponse(user=user_message(row))

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Context) -> pb.DeleteUserResponse:
        """Keep a user from signing in."""
        user_id = read_id(request.id)

        row = await self._users.delete(current_caller(), user_id)

        return pb.DeleteUserResponse(user=user_message(row))


def _name(fields: Fields, text: str) -> str:
    field = "user.name"
    fields.check(field, "is required", is_good=bool(text.strip()))
    fields.check(field, "must not look like an id", is_good=not is_id(text))
    return fields.at_most(field, text, MAX_NAME_LENGTH)


def _claim(fields: Fields, field: str, text: str) -> str:
    fields.check(field, "is required", is_good=bool(text))
    return fields.at_most(field, text, _MAX_CLAIM)
