"""A pass that is held at each of its steps while somebody else changes what it has planned by.

Whatever comes between which two statements: nothing is done twice or by halves, nobody gets what was barred, and what
the pass could not see is mended by the next one. In the suite some steps of each are tried, with
`PREBUILDS_RACE_ROUNDS` all of them.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Final

import psycopg
import pytest
import pytest_asyncio

from prebuilds.reconciler.queries.pools import Extent
from prebuilds.reconciler.queries.views import PauseScope
from prebuilds.store.database import Database
from tests.support.interleaving import Stop, until_done_or_blocked
from tests.support.postgres import deadlocks
from tests.support.racing import Contest, Ring, open_ring

ALL: Final = "PREBUILDS_RACE_ROUNDS" in os.environ
MOST_STEPS: Final = 60
TRIED: Final = 2
"""Steps of each in the short form: the last, the commit, and others by chance."""
INSTANCES: Final = 3

Others = Callable[[Contest, int | None], Coroutine[None, None, int | None]]
"""What somebody does, told which version is active; gives which one is after it, None where none is."""


async def claim(contest: Contest, active: int | None) -> int | None:
    await contest.claim(0)
    return active


async def claim_all(contest: Contest, active: int | None) -> int | None:
    await asyncio.gather(*(contest.claim(0, claimer) for claimer in range(INSTANCES)))
    return active


async def build(contest: Contest, active: int | None) -> int | None:
    await contest.complete(await contest.jobs())
    return active


async def take(contest: Contest, active: int | None) -> int | None:
    await contest.take(await contest.jobs())
    return active


async def run_another_pass(contest: Contest, active: int | None) -> int | None:
    assert (await contest.replicas[1].run(contest.extent)).failed == 0
    return active


async def pause_and_resume(contest: Contest, active: int | None) -> int | None:
    for scope in PauseScope:
        await contest.resume(await contest.pause(scope))
    return active


async def promote_back(contest: Contest, _: int | None) -> int | None:
    await contest.promote(0)
    return 0


async def invalidate(contest: Contest, active: int | None) -> int | None:
    await contest.invalidate()
    return active


async def age(contest: Contest, active: int | None) -> int | None:
    await contest.age(await contest.members(0))
    return active


async def delete_by_hand(contest: Contest, active: int | None) -> int | None:
    await contest.delete_by_hand(0, await contest.members(0))
    return active


async def promote_the_other(contest: Contest, _: int | None) -> int | None:
    await contest.promote(1)
    return 1


async def deprecate(contest: Contest, _: int | None) -> int | None:
    await contest.deprecate("old")
    return None


async def delete_template(contest: Contest, _: int | None) -> int | None:
    await contest.delete_template()
    return None


BARRING: Final = (invalidate, age, delete_by_hand, promote_the_other, deprecate, delete_template)
"""After these nobody gets what the pool held before."""


def by_name(*deeds: Others) -> Mapping[str, Others]:
    return {deed.__name__: deed for deed in deeds}


FILLING: Final = by_name(claim, claim_all, build, take, run_another_pass, pause_and_resume, *BARRING)
DRAINING: Final = by_name(claim, build, take, run_another_pass, promote_back, delete_by_hand, delete_template)


@pytest_asyncio.fixture
async def ring(database: Database, database_url: str) -> AsyncIterator[Ring]:
    async with open_ring(database, database_url) as opened:
        yield opened
    # What connections have counted is seen once they are closed.
    assert await deadlocks(database_url) == 0


@pytest_asyncio.fixture
async def observer(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


async def about_to_fill(ring: Ring) -> Contest:
    """A pool of which one prebuild is expired, one builds and one is eligible: the pass deletes one and makes one."""
    contest = await ring.contest(INSTANCES)
    await contest.settle(0)
    first, second, _ = await contest.jobs()
    await contest.complete([first, second])
    await contest.age((await contest.members(0))[:1])
    return contest


async def about_to_drain(ring: Ring) -> Contest:
    """A pool whose version is inactive: one prebuild is eligible, two are queued."""
    contest = await ring.contest(INSTANCES)
    await contest.settle(0)
    await contest.complete((await contest.jobs())[:1])
    await contest.promote(1)
    return contest


async def play(contest: Contest, others: Others, step: int, observer: psycopg.AsyncConnection, *, active: int) -> None:
    """Let a pass over the first version's pool be held before this step."""
    pool = Extent(preset_ids=frozenset({contest.pools[0].preset_id}))
    before = await contest.members(0)
    acting: list[asyncio.Task[tuple[int | None, int]]] = []

    async def act_and_count() -> tuple[int | None, int]:
        return await others(contest, active), (await contest.count())[0].places

    async def act() -> None:
        acting.append(asyncio.create_task(act_and_count()))
        await until_done_or_blocked(acting[0], observer)

    with pytest.MonkeyPatch.context() as patch:
        stop = Stop(patch, "reconcile", step, act)
        done = await contest.replicas[0].run(pool)
    assert done.failed == 0
    assert stop.was_met, "the pass has fewer steps than at first"
    active_now, places = await acting[0]
    if active_now != 0:
        assert (await contest.count())[0].places <= places, "a pool grew although its version was inactive by then"
    if others in BARRING:
        late = await asyncio.gather(*(contest.claim(0, claimer) for claimer in range(INSTANCES)))
        assert not set(before).intersection(each for each in late if each is not None)
    await contest.check()
    await contest.settle(active_now)
    await contest.check()


async def steps_of(make: Callable[[Ring], Awaitable[Contest]], ring: Ring, others: str) -> list[int]:
    """The steps that are tried of such a pass."""
    contest = await make(ring)

    async def nothing() -> None:
        return

    with pytest.MonkeyPatch.context() as patch:
        stop = Stop(patch, "reconcile", MOST_STEPS, nothing)
        await contest.replicas[0].run(Extent(preset_ids=frozenset({contest.pools[0].preset_id})))
        count = stop.steps_done
    assert 0 < count < MOST_STEPS
    if ALL:
        return list(range(count))
    return sorted({count - 1, *random.Random(others).sample(range(count), TRIED - 1)})


@pytest.mark.parametrize("others", FILLING)
async def test_a_pass_that_fills_is_held_while(ring: Ring, observer: psycopg.AsyncConnection, others: str) -> None:
    for step in await steps_of(about_to_fill, ring, others):
        await play(await about_to_fill(ring), FILLING[others], step, observer, active=0)


@pytest.mark.parametrize("others", DRAINING)
async def test_a_pass_that_drains_is_held_while(ring: Ring, observer: psycopg.AsyncConnection, others: str) -> None:
    for step in await steps_of(about_to_drain, ring, others):
        await play(await about_to_drain(ring), DRAINING[others], step, observer, active=1)


async def test_an_invalidation_that_a_pass_begins_before_and_works_after_spares_what_it_makes(ring: Ring) -> None:
    contest = await ring.contest(INSTANCES)
    async with ring.database.transaction("test") as tx:
        await tx.run(
            b"INSERT INTO groups (organization_id, name, quota_allowance) VALUES (%(id)s, 'prebuilds', 1000)",
            {"id": contest.pools[0].organization_id},
        )

    # With an allowance a pass locks the quota first: its transaction is older than the invalidation it then sees.
    with pytest.MonkeyPatch.context() as patch:
        stop = Stop(patch, "reconcile", 1, contest.invalidate)
        done = await contest.replicas[0].run(contest.extent)

    assert (stop.was_met, done.created) == (True, INSTANCES)
    await contest.complete(await contest.jobs())
    await contest.settle(0)
    assert await contest.claim(0) is not None
