"""Who people are, as Postgres has it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, insert, select, update

from prebuilds.domain.ids import SYSTEM_USER_NAME, UserId
from prebuilds.domain.principals import AssertedRoles, Person, Role
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.directory import StoredDirectory
from tests.support.builders import make_organization, make_user

ISSUER = "https://issuer.test"


@pytest.fixture
def directory(database: Database) -> StoredDirectory:
    """The directory that services pass to their chassis."""
    return StoredDirectory(database)


async def sign_in(directory: StoredDirectory, name: str = "Alice", asserted: AssertedRoles | None = None) -> Person:
    person = await directory.person(ISSUER, "alice", name, asserted)
    assert person is not None
    return person


async def seen_at(database: Database) -> datetime:
    async with database.transaction("test") as tx:
        seen = await tx.scalar(select(schema.User.last_seen_at).where(schema.User.issuer == ISSUER))
    assert seen is not None
    return seen


async def test_a_person_is_made_at_first_sight_however_many_ask_at_once(
    directory: StoredDirectory, database: Database
) -> None:
    people = await asyncio.gather(*(sign_in(directory) for _ in range(10)))

    assert len({person.user_id for person in people}) == 1
    async with database.transaction("test") as tx:
        assert await tx.scalar(select(func.count()).where(schema.User.issuer == ISSUER)) == 1


async def test_a_name_that_was_changed_here_stays(directory: StoredDirectory, database: Database) -> None:
    assert (await sign_in(directory, "Alice")).name == "Alice"
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.User).where(schema.User.issuer == ISSUER).values(name="Ally"))

    assert (await sign_in(directory, "Alice")).name == "Ally"


@pytest.mark.parametrize("name, shown", [("x" * 64, "x" * 63), (" ", "alice"), (" Alice ", "Alice")])
async def test_a_name_is_made_fit_to_be_shown(directory: StoredDirectory, name: str, shown: str) -> None:
    assert (await sign_in(directory, name)).name == shown


async def test_calls_are_written_down_to_the_minute(directory: StoredDirectory, database: Database) -> None:
    await sign_in(directory)
    first = await seen_at(database)
    await sign_in(directory)
    assert await seen_at(database) == first

    user = schema.User
    async with database.transaction("test") as tx:
        await tx.execute(update(user).values(last_seen_at=user.last_seen_at - timedelta(minutes=1)))
    await sign_in(directory)
    assert await seen_at(database) > first


async def test_neither_system_users_nor_deleted_ones_sign_in(directory: StoredDirectory, database: Database) -> None:
    user = schema.User
    async with database.transaction("test") as tx:
        issuer, subject = (await tx.execute(select(user.issuer, user.subject).where(user.is_system))).one()
    asserted = AssertedRoles({}, is_operator=True)
    assert await directory.person(issuer, subject, SYSTEM_USER_NAME, asserted) is None

    await sign_in(directory)
    async with database.transaction("test") as tx:
        await tx.execute(update(user).where(user.issuer == ISSUER).values(deleted_at=func.now()))
    assert await directory.person(ISSUER, "alice", "Alice", asserted) is None


async def test_roles_are_the_stored_ones_unless_the_token_says_them(
    directory: StoredDirectory, database: Database
) -> None:
    acme, gone = await make_organization(database), await make_organization(database, "gone")
    alice = (await sign_in(directory)).user_id
    async with database.transaction("test") as tx:
        for organization_id in (acme, gone):
            await tx.execute(
                insert(schema.OrganizationMember).values(
                    organization_id=organization_id, user_id=alice, roles=["member"]
                )
            )
        await tx.execute(update(schema.Organization).where(schema.Organization.id == gone).values(deleted=True))
    token = AssertedRoles({"acme": frozenset({Role.OWNER}), "gone": frozenset({Role.OWNER})})

    assert (await sign_in(directory)).roles == {acme: {Role.MEMBER}}
    assert (await sign_in(directory, asserted=token)).roles == {acme: {Role.OWNER}}


async def test_users_of_other_issuers_are_others(directory: StoredDirectory, database: Database) -> None:
    other: UserId = await make_user(database, "alice")
    assert (await sign_in(directory)).user_id != other
