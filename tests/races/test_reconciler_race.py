"""Passes of several replicas against claims, daemons and everybody who changes what a pool is (invariants 1, 5 to 7).

In the suite a short form runs; `PREBUILDS_RACE_ROUNDS` says how many rounds.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import pytest_asyncio

from prebuilds.domain.builds import BuildOutcome
from prebuilds.domain.ids import WorkspaceId
from prebuilds.reconciler.outcomes import PassStatistics
from prebuilds.reconciler.queries.views import PauseScope
from prebuilds.store.database import Database
from tests.support.postgres import deadlocks
from tests.support.racing import Contest, PoolCount, Replica, Ring, open_ring, retain

ROUNDS: Final = int(os.environ.get("PREBUILDS_RACE_ROUNDS", "40"))
SEED: Final = int(os.environ.get("PREBUILDS_RACE_SEED", "1"))
ROUNDS_OF_A_TEMPLATE: Final = 20
CLAIMERS: Final = 4
MOST_INSTANCES: Final = 4


@pytest_asyncio.fixture
async def ring(database: Database, database_url: str) -> AsyncIterator[Ring]:
    async with open_ring(database, database_url, replicas=3) as opened:
        yield opened
    # What connections have counted is seen once they are closed.
    assert await deadlocks(database_url) == 0


@dataclass
class Round:
    """One race: who does what is chance, what must hold of it is not."""

    contest: Contest
    chance: random.Random
    active: int | None
    """The active version; None while the template is deprecated."""

    async def run(self) -> list[WorkspaceId]:
        """Race once and settle; gives who was claimed."""
        contest, chance = self.contest, self.chance
        if chance.random() < 0.7:
            await contest.complete(await contest.jobs())
        before = await contest.count()
        members = [await contest.members(version) for version in range(2)]
        # What is barred before the race is barred for every claim in it.
        barred = set(await self._expire(members, chance.randint(0, 2)))
        if self.active is None:
            barred |= {*members[0], *members[1]}
        elif chance.random() < 0.3:
            await contest.invalidate()
            barred |= set(members[self.active])
        starts, deletes = await contest.jobs(), await contest.jobs("delete")
        built = chance.sample(starts, chance.randint(0, len(starts)))
        failing = {job_id for job_id in built if chance.random() < 0.1}
        deed = chance.choice([self._promote, self._deprecate, self._invalidate, self._age, self._delete, self._pause])

        async with self._watched(before), asyncio.TaskGroup() as race:
            claiming = [
                race.create_task(
                    contest.claim(chance.randrange(2) if chance.random() < 0.3 else self.active or 0, each)
                )
                for each in range(CLAIMERS)
            ]
            passing = [race.create_task(self._follow(replica)) for replica in contest.replicas]
            race.create_task(contest.take(chance.sample(starts, chance.randint(0, len(starts)))))
            race.create_task(contest.complete([each for each in built if each not in failing]))
            race.create_task(contest.complete(sorted(failing), BuildOutcome.FAILED))
            race.create_task(contest.complete(deletes))
            if chance.random() < 0.3:
                race.create_task(retain(contest.replicas[-1]))
            late = race.create_task(deed(members))

        hits = [hit for task in claiming if (hit := task.result()) is not None]
        hits += late.result()
        assert len(set(hits)) == len(hits), "claimed twice"
        assert not barred.intersection(hits), "claimed although barred before"
        assert all(statistics.failed == 0 for task in passing for statistics in task.result())
        await contest.check()
        await contest.settle(self.active)
        await contest.check()
        return hits

    async def _follow(self, replica: Replica) -> list[PassStatistics]:
        """Run a pass, and others as long as it met pools that somebody held."""
        return [await replica.run(replica.hints.take() | self.contest.extent) for _ in range(self.chance.randint(1, 3))]

    @asynccontextmanager
    async def _watched(self, before: Sequence[PoolCount]) -> AsyncGenerator[None]:
        """At no moment meanwhile a pool holds more than its target and what it held at first."""
        over = asyncio.Event()

        async def watch() -> None:
            while not over.is_set():
                for was, counted in zip(before, await self.contest.count(), strict=True):
                    assert counted.places <= max(self.contest.instances, was.places), (was, counted)

        async with asyncio.TaskGroup() as watching:
            watching.create_task(watch())
            try:
                yield
            finally:
                over.set()

    # What is done amid the race, each followed by claims that must not get what it barred.

    async def _expire(self, members: list[list[WorkspaceId]], count: int) -> list[WorkspaceId]:
        everybody = [*members[0], *members[1]]
        doomed = self.chance.sample(everybody, min(count, len(everybody)))
        await self.contest.age(doomed)
        return doomed

    async def _promote(self, members: list[list[WorkspaceId]]) -> list[WorkspaceId]:
        self.active = self.chance.randrange(2)
        await self.contest.deprecate("")
        await self.contest.promote(self.active)
        assert await self.contest.claim(1 - self.active) is None, "claimed of an inactive version"
        return []

    async def _deprecate(self, members: list[list[WorkspaceId]]) -> list[WorkspaceId]:
        self.active = None
        await self.contest.deprecate("old")
        for version in range(2):
            assert await self.contest.claim(version) is None, "claimed of a deprecated template"
        return []

    async def _invalidate(self, members: list[list[WorkspaceId]]) -> list[WorkspaceId]:
        await self.contest.invalidate()
        return await self._claim_late([each for pool in members for each in pool])

    async def _age(self, members: list[list[WorkspaceId]]) -> list[WorkspaceId]:
        return await self._claim_late(await self._expire(members, 3))

    async def _delete(self, members: list[list[WorkspaceId]]) -> list[WorkspaceId]:
        doomed = self.chance.sample(members[0], min(2, len(members[0])))
        await self.contest.delete_by_hand(0, doomed)
        return await self._claim_late(doomed)

    async def _pause(self, members: list[list[WorkspaceId]]) -> list[WorkspaceId]:
        target = await self.contest.pause(self.chance.choice(list(PauseScope)), self.active or 0)
        if target.scope is not PauseScope.PRESET:
            done = await self.contest.replicas[0].run(self.contest.extent)
            assert (done.created, done.deleted, done.canceled) == (0, 0, 0), "worked on while paused"
        hits = await self._claim_late([])
        await self.contest.resume(target)
        return hits

    async def _claim_late(self, barred: list[WorkspaceId]) -> list[WorkspaceId]:
        hits = [hit for version in range(2) if (hit := await self.contest.claim(version)) is not None]
        assert not set(barred).intersection(hits), "claimed although barred by what was committed before"
        return hits


async def test_passes_and_claims_race_for_pools_that_everybody_changes(ring: Ring) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    claimed: list[WorkspaceId] = []
    contest, active = await ring.contest(MOST_INSTANCES), None
    for number in range(ROUNDS):
        await ring.stay_live()
        if number % ROUNDS_OF_A_TEMPLATE == 0:
            contest, active = await ring.contest(chance.randint(1, MOST_INSTANCES)), None
        if active is None or chance.random() < 0.2:
            active = chance.randrange(2)
            await contest.deprecate("")
            await contest.promote(active)
            await contest.settle(active)
            await contest.complete(await contest.jobs())
        race = Round(contest, chance, active)
        claimed += await race.run()
        active = race.active
    assert len(set(claimed)) == len(claimed), "claimed twice"
    print(f"{ROUNDS} rounds, {len(claimed)} claimed")
    assert claimed, "nobody claimed anything, so nothing was shown"
