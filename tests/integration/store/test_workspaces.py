"""Workspaces that are built cold, and what a person's build sets of them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, update

from prebuilds.domain.builds import Transition
from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.workspaces.lifecycle import NewWorkspace, begin_build, create_workspace
from tests.support.builders import make_organization, make_pool, make_starting_prebuild, make_user

TTL = timedelta(hours=8)


async def begun(
    database: Database, workspace_id: WorkspaceId, transition: Transition
) -> tuple[datetime | None, datetime | None]:
    """When it was last used and when it stops by itself, once such a build has begun."""
    row = schema.Workspace
    async with database.transaction("test") as tx:
        await tx.execute(update(row).where(row.id == workspace_id).values(last_used_at=None, deadline=None, ttl=TTL))
        await begin_build(tx, workspace_id, transition)
        used_at, deadline = (
            await tx.execute(select(row.last_used_at, row.deadline).where(row.id == workspace_id))
        ).one()
    return used_at, deadline


async def test_a_name_is_taken_once_for_each_owner(database: Database) -> None:
    pool = await make_pool(database, await make_organization(database))
    alice, bob = await make_user(database, "alice"), await make_user(database, "bob")
    new = [
        NewWorkspace(pool.organization_id, owner, "mine", pool.template_id, TTL, autostart="") for owner in (alice, bob)
    ]
    async with database.transaction("test") as tx:
        assert await create_workspace(tx, new[0]) != await create_workspace(tx, new[1])

    with pytest.raises(Refusal) as refused:
        async with database.transaction("test") as tx:
            await create_workspace(tx, new[0])

    assert refused.value.reason is Reason.NAME_TAKEN


async def test_a_start_renews_the_deadline_and_a_stop_ends_it(database: Database) -> None:
    pool = await make_pool(database, await make_organization(database))
    alice = await make_user(database)
    async with database.transaction("test") as tx:
        workspace_id = await create_workspace(
            tx, NewWorkspace(pool.organization_id, alice, "mine", pool.template_id, TTL, autostart="")
        )

    used_at, deadline = await begun(database, workspace_id, Transition.START)

    assert used_at is not None
    assert deadline == used_at + TTL
    assert await begun(database, workspace_id, Transition.STOP) == (None, None)


async def test_nothing_of_it_reaches_a_prebuild(database: Database) -> None:
    pool = await make_pool(database, await make_organization(database))
    prebuild = await make_starting_prebuild(database, pool)

    assert await begun(database, prebuild.workspace_id, Transition.START) == (None, None)
