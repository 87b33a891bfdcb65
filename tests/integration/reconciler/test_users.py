"""Users, over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from prebuilds.domain.ids import SYSTEM_USER_ID
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.v1 import admin_pb2
from prebuilds.v1 import admin_service_pb2 as pb
from tests.support.people import ISSUER, Team
from tests.support.reconciling import ORGANIZATION, Client, refused


async def get(client: Client, id_: str) -> pb.GetUserResponse:
    return await client.admin.GetUser(pb.GetUserRequest(id=id_), metadata=client.metadata)


async def names(client: Client, **fields: Any) -> Sequence[str]:
    listed = await client.admin.ListUsers(pb.ListUsersRequest(**fields), metadata=client.metadata)
    return [user.name for user in listed.users]


async def rename(client: Client, id_: str, name: str) -> admin_pb2.User:
    request = pb.UpdateUserRequest(user=admin_pb2.User(id=id_, name=name))
    request.update_mask.paths.append("name")
    return (await client.admin.UpdateUser(request, metadata=client.metadata)).user


async def delete(client: Client, id_: str) -> admin_pb2.User:
    return (await client.admin.DeleteUser(pb.DeleteUserRequest(id=id_), metadata=client.metadata)).user


async def test_a_user_is_known_before_the_first_call_and_the_same_after_it(team: Team) -> None:
    made = await team.user("alice")
    assert not made.HasField("last_seen_time")
    alice = await team.client("alice")

    met = (await get(alice, "me")).user

    assert (met.id, met.name) == (made.id, "alice")
    assert met.HasField("last_seen_time")
    assert await team.deeds("user.create") == [("alice", {"issuer": ISSUER, "subject": "alice"})]


async def test_a_user_is_made_known_once(team: Team) -> None:
    user = admin_pb2.User(name="Alice", issuer=ISSUER, subject="alice")
    request = pb.CreateUserRequest(user=user, request_id="r1")
    first = await team.operator.admin.CreateUser(request, metadata=team.operator.metadata)

    assert await team.operator.admin.CreateUser(request, metadata=team.operator.metadata) == first
    request.user.subject = "bob"
    with refused(Reason.REQUEST_ID_REUSED):
        await team.operator.admin.CreateUser(request, metadata=team.operator.metadata)
    with refused(Reason.ALREADY_EXISTS):
        await team.operator.admin.CreateUser(pb.CreateUserRequest(user=user), metadata=team.operator.metadata)


@pytest.mark.parametrize(
    "field, text",
    [
        ("name", ""),
        ("name", " "),
        ("name", "x" * 64),
        ("name", str(SYSTEM_USER_ID)),
        ("issuer", ""),
        ("subject", ""),
        ("subject", "x" * 256),
    ],
)
async def test_a_user_needs_a_name_an_issuer_and_a_subject(team: Team, field: str, text: str) -> None:
    user = admin_pb2.User(name="alice", issuer=ISSUER, subject="alice")
    setattr(user, field, text)
    with refused(Reason.INVALID_FIELDS) as caught:
        await team.operator.admin.CreateUser(pb.CreateUserRequest(user=user), metadata=team.operator.metadata)
    assert [violation.field for violation in caught[0].violations] == [f"user.{field}"]


async def test_only_operators_make_and_delete_users(team: Team) -> None:
    alice = await team.member("alice")
    owner = await team.client("owner", Role.OWNER)
    user = admin_pb2.User(name="bob", issuer=ISSUER, subject="bob")

    with refused(Reason.PERMISSION_DENIED):
        await owner.admin.CreateUser(pb.CreateUserRequest(user=user), metadata=owner.metadata)
    with refused(Reason.PERMISSION_DENIED):
        await delete(owner, alice.user_id)


async def test_a_user_is_seen_by_itself_and_by_who_has_an_organisation_in_common(team: Team) -> None:
    await team.operator.make_organization("other")
    made = await team.member("alice", Role.AUDITOR)
    request = pb.CreateMemberRequest(organization="other", user="alice")
    await team.operator.admin.CreateMember(request, metadata=team.operator.metadata)
    alice = await team.client("alice")
    bob = await team.client("bob", Role.MEMBER)
    stranger = await team.client("eve")

    own, known, all_of_it = await get(alice, "me"), await get(bob, made.user_id), await get(team.operator, made.user_id)

    assert {member.organization_id for member in own.memberships} > {made.organization_id}
    assert list(known.memberships) == [made]
    assert own == all_of_it
    with refused(Reason.NOT_FOUND):
        await get(stranger, made.user_id)
    with refused(Reason.INVALID_FIELDS):
        await get(stranger, "alice")


async def test_system_users_and_deleted_ones_are_listed_only_when_asked_for(team: Team) -> None:
    await team.member("alice")
    bob = await team.user("bob")
    await delete(team.operator, bob.id)

    assert await names(team.operator) == ["alice", "root"]
    assert await names(team.operator, show_system=True) == ["alice", "prebuilds", "root"]
    assert await names(team.operator, show_deleted=True) == ["alice", "bob", "root"]
    assert await names(team.operator, filter="subject=alice AND issuer=prebuilds") == ["alice"]


async def test_members_list_the_users_of_their_organisation(team: Team) -> None:
    await team.member("alice")
    await team.user("bob")
    alice = await team.client("alice", Role.MEMBER)

    assert await names(alice, organization=ORGANIZATION) == ["alice", "root"]
    with refused(Reason.INVALID_FIELDS):
        await names(alice)
    with refused(Reason.NOT_FOUND):
        await names(alice, organization="other")


async def test_users_come_in_pages(team: Team) -> None:
    for name in ("alice", "bob", "carol"):
        await team.user(name)
    request, seen = pb.ListUsersRequest(page_size=2), list[str]()
    while True:
        listed = await team.operator.admin.ListUsers(request, metadata=team.operator.metadata)
        seen.extend(user.name for user in listed.users)
        request.page_token = listed.next_page_token
        if not request.page_token:
            break

    assert seen == ["alice", "bob", "carol", "root"]


async def test_users_rename_themselves_and_stay_renamed(team: Team) -> None:
    made = await team.member("alice")
    alice = await team.client("alice", Role.MEMBER)
    bob = await team.client("bob", Role.OWNER)
    stranger = await team.client("eve")

    assert (await rename(alice, made.user_id, "Alice")).name == "Alice"
    with refused(Reason.PERMISSION_DENIED):
        await rename(bob, made.user_id, "Bob's")
    with refused(Reason.NOT_FOUND):
        await rename(stranger, made.user_id, "Eve's")

    # Another token signs in anew.
    again = await team.client("alice", Role.AUDITOR)
    assert (await get(again, "me")).user.name == "Alice"
    assert await team.deeds("user.update") == [("alice", {"name": {"from": "alice", "to": "Alice"}})]


async def test_a_deleted_user_cannot_sign_in_and_is_a_member_nowhere(team: Team) -> None:
    made = await team.member("alice", Role.AUDITOR)
    group = await team.group("devs")
    request = pb.AddGroupMembersRequest(id=group.id, users=["alice"])
    await team.operator.admin.AddGroupMembers(request, metadata=team.operator.metadata)
    alice = await team.client("alice", Role.OWNER)

    deleted = await delete(team.operator, made.user_id)

    assert deleted.HasField("delete_time")
    assert await delete(team.operator, made.user_id) == deleted
    with refused(Reason.CREDENTIALS_INVALID):
        await get(alice, "me")
    assert await team.members() == ["root"]
    assert (await team.groups())["devs"].member_count == 0
    assert await team.deeds("member.delete") == [("alice", {"roles": ["auditor"]})]
    assert await team.deeds("user.delete") == [("alice", {"issuer": ISSUER, "subject": "alice"})]
    again = pb.CreateUserRequest(user=admin_pb2.User(name="alice", issuer=ISSUER, subject="alice"))
    with refused(Reason.ALREADY_EXISTS):
        await team.operator.admin.CreateUser(again, metadata=team.operator.metadata)


async def test_the_only_owner_of_an_organisation_cannot_be_deleted(team: Team) -> None:
    root = (await get(team.operator, "me")).user

    with refused(Reason.LAST_OWNER) as caught:
        await delete(team.operator, root.id)
    assert caught[0].metadata["organizations"] == team.organization.id

    await team.member("alice", Role.OWNER)
    assert (await delete(team.operator, root.id)).HasField("delete_time")


async def test_the_system_user_is_neither_renamed_nor_deleted(team: Team) -> None:
    with refused(Reason.SYSTEM_OWNED):
        await rename(team.operator, str(SYSTEM_USER_ID), "mine")
    with refused(Reason.SYSTEM_OWNED):
        await delete(team.operator, str(SYSTEM_USER_ID))
