"""The system user's part in organisations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import insert, select, update

from prebuilds.domain.ids import SYSTEM_USER_ID, OrganizationId
from prebuilds.reconciler.membership import Membership
from prebuilds.reconciler.queries.groups import Joined
from prebuilds.store import schema
from prebuilds.store.database import Database
from tests.support.builders import make_organization, make_pool
from tests.support.people import Team
from tests.support.reconciling import make_manifest
from tests.support.waiting import eventually


@pytest.fixture
def membership(database: Database) -> Membership:
    """The loop, run by hand."""
    return Membership(database, interval=timedelta(hours=1))


async def parts(database: Database) -> Sequence[tuple[object, ...]]:
    """Where the system user takes part: organisation, roles, group and its allowance."""
    member, place, group, organization = (
        schema.OrganizationMember,
        schema.GroupMember,
        schema.Group,
        schema.Organization,
    )
    statement = (
        select(organization.name, member.roles, group.name, group.quota_allowance)
        .join(organization, organization.id == member.organization_id)
        .outerjoin(place, place.user_id == member.user_id)
        .outerjoin(group, (group.id == place.group_id) & (group.organization_id == organization.id))
        .where(member.user_id == SYSTEM_USER_ID, (group.id.is_not(None)) | (place.group_id.is_(None)))
        .order_by(organization.name)
    )
    async with database.transaction("test") as tx:
        return [tuple(row) for row in await tx.execute(statement)]


async def test_the_system_user_takes_part_where_a_preset_asks_for_prebuilds(
    database: Database, membership: Membership
) -> None:
    await make_pool(database, await make_organization(database, "a"), template="one")
    await make_pool(database, await make_organization(database, "b"), template="two", instances=0)
    await make_pool(database, await make_organization(database, "c"), template="three", instances=None)
    await make_organization(database, "d")

    joined = await membership.run_once()

    assert joined == Joined(memberships=2, groups=2, places=2)
    assert await parts(database) == [("a", [], "prebuilds", None), ("b", [], "prebuilds", None)]
    assert not await membership.run_once()


@pytest.mark.parametrize("change", [{"active_version_id": None}, {"deleted": True}, {"deprecated": "use another"}])
async def test_a_template_that_is_not_live_makes_nobody_take_part(
    database: Database, membership: Membership, change: dict[str, object]
) -> None:
    await make_pool(database, await make_organization(database))
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Template).values(**change))

    assert not await membership.run_once()
    assert not await parts(database)


async def test_who_takes_part_stays_when_the_last_pool_has_gone(database: Database, membership: Membership) -> None:
    await make_pool(database, await make_organization(database))
    await membership.run_once()
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Template).values(deleted=True))

    assert not await membership.run_once()
    assert await parts(database) == [("acme", [], "prebuilds", None)]


async def test_a_group_of_that_name_is_adopted_with_its_allowance(database: Database, membership: Membership) -> None:
    organization_id = await make_organization(database)
    await make_pool(database, organization_id)
    async with database.transaction("test") as tx:
        await tx.execute(
            insert(schema.Group).values(organization_id=organization_id, name="prebuilds", quota_allowance=7)
        )

    assert await membership.run_once() == Joined(memberships=1, groups=0, places=1)
    assert await parts(database) == [("acme", [], "prebuilds", 7)]


async def test_replicas_that_look_at_once_make_everything_once(database: Database) -> None:
    for number in range(20):
        await make_pool(database, await make_organization(database, f"o{number}"), template=f"t{number}")

    found = await asyncio.gather(*(Membership(database, interval=timedelta(hours=1)).run_once() for _ in range(5)))

    assert sum(joined.memberships for joined in found) == 20
    assert sum(joined.groups for joined in found) == 20
    assert sum(joined.places for joined in found) == 20
    assert len(await parts(database)) == 20


async def test_a_pushed_pool_makes_the_system_user_a_hidden_member(team: Team, database: Database) -> None:
    await team.operator.push(make_manifest())

    (part,) = await eventually(lambda: parts(database))

    assert part == ("acme", [], "prebuilds", None)
    assert await team.members() == ["root"]
    assert await team.members(show_system=True) == ["prebuilds", "root"]
    member = await team.get_member("prebuilds")
    assert (member.user_id, list(member.roles)) == (str(SYSTEM_USER_ID), [])
    group = (await team.groups())["prebuilds"]
    assert (group.is_system, group.member_count, list(member.group_ids)) == (True, 0, [group.id])


async def test_the_first_look_is_at_the_start(team: Team, database: Database) -> None:
    async def parts_of_other() -> Sequence[object]:
        return [part for part in await parts(database) if part[0] == "other"]

    other = await make_organization(database, "other")
    await make_pool(database, OrganizationId(UUID(str(other))), template="late")
    assert not await parts_of_other()

    await team.reconcilers.start()

    assert await eventually(parts_of_other)
