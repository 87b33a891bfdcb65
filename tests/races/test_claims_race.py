"""Claimers of several processes against a pool that somebody thins at the same time (invariants 1 and 6).

In the suite a short form runs; `PREBUILDS_RACE_ROUNDS` says how many rounds, each with another number of prebuilds.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import pytest_asyncio

from prebuilds.claims.attempts import Attempt, MissedError
from prebuilds.claims.claiming import claim_or_build
from prebuilds.claims.queries.naming import Named
from prebuilds.claims.queries.offers import Owner, Preset, Template
from prebuilds.claims.wishes import Plan, Wish
from prebuilds.domain.claims import ClaimMode
from prebuilds.domain.ids import UserId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.store.audit import Actor
from prebuilds.store.database import Database, open_database
from prebuilds.store.pool.filling import PoolKey, create_prebuilds, mark_deleting
from prebuilds.store.requests import RequestKey
from tests.support.builders import make_organization, make_pool, make_user
from tests.support.claims import live_gateway
from tests.support.postgres import deadlocks

ROUNDS: Final = int(os.environ.get("PREBUILDS_RACE_ROUNDS", "150"))
CLAIMERS: Final = 6
MOST_PREBUILDS: Final = 8
PROCESSES: Final = 2
"""Played by sets of connections of their own."""


@dataclass(frozen=True)
class Scene:
    """A pool, a person, and the connections of those who race."""

    database: Database
    claims: Sequence[Database]
    reconciler: Database
    pool: PoolKey
    alice: UserId

    async def fill(self, count: int) -> list[WorkspaceId]:
        """Prebuilds that are all eligible, in place of those that were there."""
        gateway = await live_gateway(self.database)
        async with self.database.transaction("fill") as tx:
            await tx.run(b"DELETE FROM prebuilds")
            queued = await create_prebuilds(tx, self.pool, count, parameters={}, reason="test")
            ids = [build.workspace_id for build in queued]
            builds = {"ids": [build.build_id for build in queued]}
            await tx.run(b"UPDATE jobs SET status = 'succeeded' WHERE build_id = ANY(%(ids)s)", builds)
            await tx.run(b"UPDATE builds SET outcome = 'succeeded' WHERE id = ANY(%(ids)s)", builds)
            await tx.run(
                b"UPDATE prebuilds SET state = 'running', ready_at = clock_timestamp(), gateways = ARRAY[%(gateway)s]",
                {"gateway": gateway},
            )
            await tx.run(b"UPDATE gateways SET seen_at = now()")
        return ids

    async def claim(self, claimer: int) -> WorkspaceId | None:
        """One request; None is a miss."""
        plan = Plan(
            organization_id=self.pool.organization_id,
            owner=Owner(self.alice, "alice"),
            template=Template(self.pool.template_id, "t", "", None, "", self.pool.version_id, (), ()),
            version_id=self.pool.version_id,
            preset=Preset(self.pool.preset_id, "small", is_default=True, has_pool=True, parameters={}),
            miss=None,
            values={},
            choices={},
            ttl=None,
            autostart="",
        )
        request_id = str(uuid4())
        wish = Wish(
            Named.of("acme"), Named.of("t"), None, {}, request_id, None, ClaimMode.REQUIRE_WARM, None, None, request_id
        )
        actor = Actor(f"person:{self.alice}", "alice")
        key = RequestKey(self.pool.organization_id, actor.principal, "CreateWorkspace", request_id)
        attempt = Attempt(plan, wish, self.alice, actor, key, b"", wish.name, datetime.now(UTC))
        assert plan.preset is not None
        try:
            created = await claim_or_build(self.claims[claimer % PROCESSES], attempt, plan.preset)
        except MissedError:
            return None
        return created.workspace.id

    async def mark(self, doomed: Sequence[WorkspaceId]) -> set[WorkspaceId]:
        """Mark what nobody has claimed yet."""
        async with self.reconciler.transaction("mark") as tx:
            queued = await mark_deleting(tx, self.pool, doomed, kind=PoolEventKind.DELETED, reason="test")
        return {build.workspace_id for build in queued}


@pytest_asyncio.fixture
async def scene(database: Database, database_url: str) -> AsyncIterator[Scene]:
    pool = await make_pool(database, await make_organization(database))
    async with AsyncExitStack() as stack:
        claims, reconciler = (
            [await stack.enter_async_context(open_database(database_url, pool_size=3)) for _ in range(PROCESSES)],
            await stack.enter_async_context(open_database(database_url, pool_size=1)),
        )
        yield Scene(database, claims, reconciler, pool, await make_user(database))
    # What connections have counted is seen once they are closed.
    assert await deadlocks(database_url) == 0


async def test_claimers_get_exactly_what_nobody_marked(scene: Scene) -> None:
    chance = random.Random(1)
    for _ in range(ROUNDS):
        prebuilds = await scene.fill(chance.randint(0, MOST_PREBUILDS))
        doomed = chance.sample(prebuilds, chance.randint(0, len(prebuilds)))
        before = await scene.mark(doomed[:1])

        async with asyncio.TaskGroup() as race:
            claiming = [race.create_task(scene.claim(claimer)) for claimer in range(CLAIMERS)]
            marking = race.create_task(scene.mark(doomed[1:]))

        hits = [task.result() for task in claiming if task.result() is not None]
        marked = before | marking.result()
        assert len(set(hits)) == len(hits), "claimed twice"
        assert not marked.intersection(hits), "claimed although marked"
        assert len(hits) == min(CLAIMERS, len(prebuilds) - len(marked))
