"""Members of organisations, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any
from uuid import UUID

import grpc.aio
import psycopg
import pytest

from prebuilds.domain.ids import OrganizationId, UserId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.reconciler.queries.people import lock_organization
from prebuilds.reconciler.queries.users import mark_deleted
from prebuilds.sdk.errors import error_of
from prebuilds.store.database import Database
from prebuilds.v1 import admin_pb2
from prebuilds.v1 import admin_service_pb2 as pb
from tests.support.people import ROLES, Team
from tests.support.reconciling import ORGANIZATION, Client, refused
from tests.support.waiting import until_waiting


async def set_roles(client: Client, member: admin_pb2.Member, *roles: Role) -> admin_pb2.Member:
    request = pb.UpdateMemberRequest(member=member)
    del request.member.roles[:]
    request.member.roles.extend(ROLES[role] for role in roles)
    request.update_mask.paths.append("roles")
    return (await client.admin.UpdateMember(request, metadata=client.metadata)).member


async def remove(client: Client, user: str) -> None:
    request = pb.DeleteMemberRequest(organization=ORGANIZATION, user=user)
    await client.admin.DeleteMember(request, metadata=client.metadata)


async def get(client: Client, user: str, organization: str = ORGANIZATION) -> admin_pb2.Member:
    request = pb.GetMemberRequest(organization=organization, user=user)
    return (await client.admin.GetMember(request, metadata=client.metadata)).member


async def test_a_member_is_shown_with_the_stored_roles_whatever_a_token_says(team: Team) -> None:
    made = await team.member("alice", Role.AUDITOR)
    alice = await team.client("alice", Role.OWNER)

    assert await get(alice, "alice") == made
    assert await get(alice, made.user_id) == made
    assert list(made.roles) == [admin_pb2.ROLE_AUDITOR]


async def test_a_member_sees_its_own_part_and_an_auditor_everybodys(team: Team) -> None:
    await team.member("alice")
    await team.member("bob")
    await team.operator.make_organization("other")
    alice = await team.client("alice", Role.MEMBER)
    auditor = await team.client("ada", Role.AUDITOR)
    stranger = await team.client("eve", Role.OWNER, at="other")

    assert (await get(alice, "alice")).user_name == "alice"
    with refused(Reason.PERMISSION_DENIED):
        await get(alice, "bob")
    assert (await get(auditor, "bob")).user_name == "bob"
    with refused(Reason.NOT_FOUND):
        await get(auditor, "nobody")
    with refused(Reason.NOT_FOUND):
        await get(stranger, "bob")


async def test_roles_are_replaced_and_written_down(team: Team) -> None:
    alice = await team.member("alice")
    owner = await team.client("owner", Role.OWNER)

    changed = await set_roles(owner, alice, Role.AUDITOR, Role.MEMBER)
    await set_roles(owner, alice, Role.MEMBER, Role.AUDITOR)

    assert list(changed.roles) == [admin_pb2.ROLE_MEMBER, admin_pb2.ROLE_AUDITOR]
    assert await team.get_member("alice") == changed
    assert await team.deeds("member.update") == [
        ("alice", {"roles": {"from": ["member"], "to": ["auditor", "member"]}}),
    ]


async def test_only_owners_change_members(team: Team) -> None:
    alice = await team.member("alice")
    admin = await team.client("ada", Role.TEMPLATE_ADMIN, Role.AUDITOR)

    with refused(Reason.PERMISSION_DENIED):
        await set_roles(admin, alice, Role.OWNER)
    with refused(Reason.PERMISSION_DENIED):
        await remove(admin, "alice")


@pytest.mark.parametrize(
    "roles, paths",
    [([], ["roles"]), ([1, 1], ["roles"]), ([0], ["roles"]), ([99], ["roles"]), ([1], []), ([1], ["user_name"])],
)
async def test_an_update_of_a_member_needs_roles_and_a_mask(
    team: Team, roles: Sequence[Any], paths: Sequence[str]
) -> None:
    alice = await team.member("alice")
    member = admin_pb2.Member(organization_id=alice.organization_id, user_id=alice.user_id, roles=roles)
    request = pb.UpdateMemberRequest(member=member)
    request.update_mask.paths.extend(paths)

    with refused(Reason.INVALID_FIELDS):
        await team.operator.admin.UpdateMember(request, metadata=team.operator.metadata)


async def test_the_last_owner_stays_one(team: Team) -> None:
    root = await team.get_member("root")

    with refused(Reason.LAST_OWNER):
        await remove(team.operator, "root")
    with refused(Reason.LAST_OWNER):
        await set_roles(team.operator, root, Role.MEMBER)

    alice = await team.member("alice", Role.OWNER)
    await set_roles(team.operator, root, Role.MEMBER)
    with refused(Reason.LAST_OWNER):
        await set_roles(team.operator, alice, Role.AUDITOR)
    assert list((await set_roles(team.operator, alice, Role.OWNER, Role.AUDITOR)).roles) == [
        admin_pb2.ROLE_AUDITOR,
        admin_pb2.ROLE_OWNER,
    ]


async def outcomes(*calls: Awaitable[object]) -> list[Reason | None]:
    """How calls ended: None for those that succeeded."""
    ended = await asyncio.gather(*calls, return_exceptions=True)
    refusals = [error_of(each).reason if isinstance(each, grpc.aio.AioRpcError) else None for each in ended]
    return sorted(refusals, key=lambda each: each or "")


async def test_of_two_owners_who_go_at_once_one_stays(team: Team, database: Database, database_url: str) -> None:
    alice = await team.member("alice", Role.OWNER)
    organization_id = OrganizationId(UUID(alice.organization_id))

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching,
        database.transaction("test") as tx,
    ):
        await lock_organization(tx, organization_id)
        going = asyncio.ensure_future(
            outcomes(remove(team.operator, "root"), set_roles(team.operator, alice, Role.MEMBER))
        )
        await until_waiting(watching, 2)

    assert await going == [None, Reason.LAST_OWNER]


async def test_an_owner_who_is_deleted_as_the_other_goes_stays(
    team: Team, database: Database, database_url: str
) -> None:
    alice = await team.member("alice", Role.OWNER)
    organization_id = OrganizationId(UUID(alice.organization_id))
    deletion = pb.DeleteUserRequest(id=alice.user_id)

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching,
        database.transaction("test") as tx,
    ):
        await lock_organization(tx, organization_id)
        going = asyncio.ensure_future(
            outcomes(
                remove(team.operator, "root"),
                team.operator.admin.DeleteUser(deletion, metadata=team.operator.metadata),
            )
        )
        await until_waiting(watching, 2)

    assert await going == [None, Reason.LAST_OWNER]


async def test_a_membership_ends_in_the_groups_too(team: Team) -> None:
    await team.member("alice")
    group = await team.group("devs")
    request = pb.AddGroupMembersRequest(id=group.id, users=["alice"])
    await team.operator.admin.AddGroupMembers(request, metadata=team.operator.metadata)

    await remove(team.operator, "alice")

    assert await team.members() == ["root"]
    assert (await team.groups())["devs"].member_count == 0
    with refused(Reason.NOT_FOUND):
        await remove(team.operator, "alice")
    assert await team.deeds("member.delete") == [("alice", {"roles": ["member"]})]


async def test_a_repeated_request_gets_the_first_answer(team: Team) -> None:
    await team.user("alice")
    request = pb.CreateMemberRequest(organization=ORGANIZATION, user="alice", request_id="r1")
    first = await team.operator.admin.CreateMember(request, metadata=team.operator.metadata)

    assert await team.operator.admin.CreateMember(request, metadata=team.operator.metadata) == first
    request.roles.append(admin_pb2.ROLE_OWNER)
    with refused(Reason.REQUEST_ID_REUSED):
        await team.operator.admin.CreateMember(request, metadata=team.operator.metadata)


async def test_the_system_user_is_nobodys_to_make_a_member(team: Team) -> None:
    request = pb.CreateMemberRequest(organization=ORGANIZATION, user="prebuilds")
    with refused(Reason.SYSTEM_OWNED):
        await team.operator.admin.CreateMember(request, metadata=team.operator.metadata)

    person = await team.user("prebuilds")

    made = await team.operator.admin.CreateMember(request, metadata=team.operator.metadata)
    assert made.member.user_id == person.id


async def test_a_name_of_several_people_names_nobody(team: Team) -> None:
    user = admin_pb2.User(name="alice", issuer="elsewhere", subject="alice")
    other = await team.operator.admin.CreateUser(pb.CreateUserRequest(user=user), metadata=team.operator.metadata)
    await team.member("alice")

    request = pb.CreateMemberRequest(organization=ORGANIZATION, user="alice")
    with refused(Reason.INVALID_FIELDS) as caught:
        await team.operator.admin.CreateMember(request, metadata=team.operator.metadata)
    assert [violation.field for violation in caught[0].violations] == ["user"]
    # Within the organisation the name is one person's alone.
    assert (await team.get_member("alice")).user_id != other.user.id


async def test_a_user_who_is_being_deleted_becomes_no_member(team: Team, database: Database, database_url: str) -> None:
    alice = await team.user("alice")
    request = pb.CreateMemberRequest(organization=ORGANIZATION, user="alice")

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching,
        database.transaction("test") as tx,
    ):
        await mark_deleted(tx, UserId(UUID(alice.id)))
        making = asyncio.ensure_future(
            outcomes(team.operator.admin.CreateMember(request, metadata=team.operator.metadata))
        )
        await until_waiting(watching)

    assert await making == [Reason.NOT_FOUND]
    assert await team.members() == ["root"]
