"""Groups with their allowance, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import insert

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import GroupId, OrganizationId, UserId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.reconciler.queries.groups import delete_group, lock_group
from prebuilds.reconciler.queries.people import end_membership
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.v1 import admin_pb2
from prebuilds.v1 import admin_service_pb2 as pb
from tests.support.people import Team
from tests.support.reconciling import ORGANIZATION, Client, Stage, make_manifest, refused
from tests.support.waiting import eventually, until_waiting

LARGEST = 2**63 - 1

RECORD_EVENTS = (
    b"CREATE TABLE told (event text, subject_id uuid)",
    b"""
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN INSERT INTO told VALUES (new.event, new.subject_id); RETURN new; END'
    """,
    b"CREATE TRIGGER tell AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION tell()",
)
"""Remember each event: the relay takes what it has published out of the outbox at once."""


async def update(client: Client, group: admin_pb2.Group, *paths: str) -> admin_pb2.Group:
    request = pb.UpdateGroupRequest(group=group)
    request.update_mask.paths.extend(paths)
    return (await client.admin.UpdateGroup(request, metadata=client.metadata)).group


async def add(client: Client, group: admin_pb2.Group, *users: str) -> admin_pb2.Group:
    request = pb.AddGroupMembersRequest(id=group.id, users=users)
    return (await client.admin.AddGroupMembers(request, metadata=client.metadata)).group


async def take_out(client: Client, group: admin_pb2.Group, *users: str) -> admin_pb2.Group:
    request = pb.RemoveGroupMembersRequest(id=group.id, users=users)
    return (await client.admin.RemoveGroupMembers(request, metadata=client.metadata)).group


async def delete(client: Client, group: admin_pb2.Group) -> None:
    await client.admin.DeleteGroup(pb.DeleteGroupRequest(id=group.id), metadata=client.metadata)


async def get(client: Client, group: admin_pb2.Group) -> admin_pb2.Group:
    return (await client.admin.GetGroup(pb.GetGroupRequest(id=group.id), metadata=client.metadata)).group


async def system_group(team: Team) -> admin_pb2.Group:
    """The group that the reconciler makes once there is a pool."""

    async def made() -> list[admin_pb2.Group]:
        return [group for group in (await team.groups()).values() if group.is_system]

    (group,) = await eventually(made)
    return group


async def test_a_group_is_made_without_members_and_listed_by_name(team: Team) -> None:
    devs = await team.group("devs", 0)
    admins = await team.group("admins")
    member = await team.client("ann", Role.MEMBER)

    assert list((await team.groups()).values()) == [admins, devs]
    assert (devs.quota_allowance, devs.HasField("quota_allowance"), devs.member_count, devs.is_system) == (
        0,
        True,
        0,
        False,
    )
    assert not admins.HasField("quota_allowance")
    assert await get(member, devs) == devs
    with refused(Reason.NAME_TAKEN):
        await team.group("devs")


async def test_a_repeated_request_makes_one_group(team: Team) -> None:
    request = pb.CreateGroupRequest(organization=ORGANIZATION, group=admin_pb2.Group(name="devs"), request_id="r1")
    first = await team.operator.admin.CreateGroup(request, metadata=team.operator.metadata)

    assert await team.operator.admin.CreateGroup(request, metadata=team.operator.metadata) == first
    request.group.quota_allowance = 5
    with refused(Reason.REQUEST_ID_REUSED):
        await team.operator.admin.CreateGroup(request, metadata=team.operator.metadata)


async def test_owners_alone_change_groups_and_strangers_see_none(team: Team) -> None:
    devs = await team.group("devs")
    await team.operator.make_organization("other")
    auditor = await team.client("ada", Role.AUDITOR)
    stranger = await team.client("eve", Role.OWNER, at="other")

    for call in (update(auditor, devs, "name"), add(auditor, devs, "root"), delete(auditor, devs)):
        with refused(Reason.PERMISSION_DENIED):
            await call
    for call in (get(stranger, devs), update(stranger, devs, "name"), add(stranger, devs, "root")):
        with refused(Reason.NOT_FOUND):
            await call


async def test_what_the_mask_names_is_changed_and_written_down(team: Team) -> None:
    devs = await team.group("devs", 5)

    renamed = await update(team.operator, admin_pb2.Group(id=devs.id, name="developers", quota_allowance=9), "name")
    unlimited = await update(team.operator, admin_pb2.Group(id=devs.id), "quota_allowance")
    await update(team.operator, admin_pb2.Group(id=devs.id), "quota_allowance")

    assert (renamed.name, renamed.quota_allowance) == ("developers", 5)
    assert (unlimited.name, unlimited.HasField("quota_allowance")) == ("developers", False)
    assert await team.deeds("group.update") == [
        ("developers", {"name": {"from": "devs", "to": "developers"}}),
        ("developers", {"quota_allowance": {"from": 5, "to": None}}),
    ]
    await team.group("other")
    with refused(Reason.NAME_TAKEN):
        await update(team.operator, admin_pb2.Group(id=devs.id, name="other"), "name")
    with refused(Reason.INVALID_FIELDS):
        await update(team.operator, admin_pb2.Group(id=devs.id, quota_allowance=-1), "quota_allowance")


async def test_people_are_put_in_and_taken_out_by_name_or_id(team: Team) -> None:
    alice, bob = await team.member("alice"), await team.member("bob")
    devs = await team.group("devs", 5)

    assert (await add(team.operator, devs, "alice", alice.user_id.upper(), bob.user_id)).member_count == 2
    assert (await add(team.operator, devs, "bob")).member_count == 2
    assert list((await team.get_member("alice")).group_ids) == [devs.id]
    assert list(await team.groups(filter="user=bob")) == ["devs"]
    assert list(await team.groups(filter=f"user={alice.user_id}")) == ["devs"]

    assert (await take_out(team.operator, devs, "alice", "root", "nobody")).member_count == 1
    assert (await take_out(team.operator, devs, "alice")).member_count == 1
    assert not await team.groups(filter="user=alice")
    people = [{"id": member.user_id, "name": member.user_name} for member in (alice, bob)]
    assert await team.deeds("group.update") == [("devs", {"added": people}), ("devs", {"removed": people[:1]})]


async def test_who_is_no_member_is_put_into_no_group(team: Team) -> None:
    await team.member("alice")
    await team.user("bob")
    devs = await team.group("devs")

    with refused(Reason.NOT_FOUND):
        await add(team.operator, devs, "alice", "bob")
    assert (await get(team.operator, devs)).member_count == 0


@pytest.mark.parametrize("users", [[], [""], ["alice"] * 501, ["x" * 201]])
async def test_people_of_a_group_are_named_in_measure(team: Team, users: Sequence[str]) -> None:
    devs = await team.group("devs")
    with refused(Reason.INVALID_FIELDS):
        await add(team.operator, devs, *users)
    with refused(Reason.INVALID_FIELDS):
        await take_out(team.operator, devs, *users)


async def test_a_member_who_leaves_at_this_moment_is_put_into_no_group(
    team: Team, database: Database, database_url: str
) -> None:
    alice = await team.member("alice")
    devs = await team.group("devs")
    organization_id = OrganizationId(UUID(alice.organization_id))

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching,
        database.transaction("test") as tx,
    ):
        await end_membership(tx, organization_id, UserId(UUID(alice.user_id)))
        adding = asyncio.ensure_future(add(team.operator, devs, "alice"))
        await until_waiting(watching)

    assert (await adding).member_count == 0


async def test_nobody_is_put_into_a_group_that_is_being_deleted(
    team: Team, database: Database, database_url: str
) -> None:
    devs = await team.group("devs")
    group_id = GroupId(UUID(devs.id))

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching,
        database.transaction("test") as tx,
    ):
        await lock_group(tx, group_id)
        await delete_group(tx, group_id)
        adding = asyncio.ensure_future(add(team.operator, devs, "root"))
        await until_waiting(watching)

    with refused(Reason.NOT_FOUND):
        await adding


async def test_allowances_add_up_to_the_largest_number_at_most(team: Team) -> None:
    await team.member("alice")
    first, second, third = await team.group("a", 3), await team.group("b", 4), await team.group("c", LARGEST)
    await add(team.operator, first, "alice")
    await add(team.operator, second, "alice")

    assert (await team.get_member("alice")).quota_allowance == 7
    await add(team.operator, third, "alice")
    assert (await team.get_member("alice")).quota_allowance == LARGEST
    await update(team.operator, admin_pb2.Group(id=first.id), "quota_allowance")
    assert not (await team.get_member("alice")).HasField("quota_allowance")


async def test_a_deleted_group_no_longer_counts(team: Team) -> None:
    await team.member("alice")
    devs = await team.group("devs", 3)
    await add(team.operator, devs, "alice")

    await delete(team.operator, devs)

    assert not (await team.get_member("alice")).HasField("quota_allowance")
    with refused(Reason.NOT_FOUND):
        await get(team.operator, devs)
    assert await team.deeds("group.delete") == [("devs", {"quota_allowance": 3})]


async def test_only_the_allowance_of_the_systems_group_may_be_changed(team: Team) -> None:
    with refused(Reason.NAME_TAKEN):
        await team.group("prebuilds")
    await team.operator.push(make_manifest())
    group = await system_group(team)
    assert group.is_system
    assert not group.HasField("quota_allowance")

    for call in (
        update(team.operator, admin_pb2.Group(id=group.id, name="mine"), "name"),
        add(team.operator, group, "root"),
        take_out(team.operator, group, "prebuilds"),
        delete(team.operator, group),
    ):
        with refused(Reason.SYSTEM_OWNED):
            await call
    changed = await update(
        team.operator, admin_pb2.Group(id=group.id, name="prebuilds", quota_allowance=7), "name", "quota_allowance"
    )
    assert changed.quota_allowance == 7
    other = await team.group("other")
    with refused(Reason.NAME_TAKEN):
        await update(team.operator, admin_pb2.Group(id=other.id, name="prebuilds"), "name")
    with refused(Reason.SYSTEM_OWNED):
        await add(team.operator, other, "prebuilds")


async def test_another_allowance_of_the_systems_group_wakes_the_reconciler(team: Team, stage: Stage) -> None:
    pushed = await team.operator.push(make_manifest(instances=2))
    (preset,) = pushed.presets
    group = await system_group(team)
    first = await eventually(lambda: stage.jobs(preset.id))
    # The pool falls short without anybody telling the reconciler: only the setting's event makes it look.
    async with stage.database.transaction("test") as tx:
        await tx.run(b"DELETE FROM prebuilds")

    await update(team.operator, admin_pb2.Group(id=group.id, quota_allowance=100), "quota_allowance")

    async def refilled() -> bool:
        return len(await stage.jobs(preset.id)) == 2 * len(first)

    await eventually(refilled)


async def test_events_are_written_for_the_systems_group_alone(team: Team, database: Database) -> None:
    devs = await team.group("devs")
    row = schema.Group
    organization_id = OrganizationId(UUID(team.organization.id))
    async with database.transaction("test") as tx:
        made = await tx.scalar(insert(row).values(organization_id=organization_id, name="prebuilds").returning(row.id))
        for statement in RECORD_EVENTS:
            await tx.run(statement)

    await update(team.operator, admin_pb2.Group(id=devs.id, quota_allowance=1), "quota_allowance")
    await update(team.operator, admin_pb2.Group(id=str(made), quota_allowance=1), "quota_allowance")
    await update(team.operator, admin_pb2.Group(id=str(made), quota_allowance=1), "quota_allowance")

    async with database.transaction("test") as tx:
        told = await (await tx.run(b"SELECT event, subject_id FROM told")).fetchall()
    assert told == [(EventKind.SETTINGS_CHANGED.value, organization_id)]
