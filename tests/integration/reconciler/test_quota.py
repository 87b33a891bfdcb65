"""What the allowance of the group `prebuilds` admits, and who waits for whom because of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import select, update
from structlog.testing import capture_logs

from prebuilds.domain.builds import FailureClass, Transition
from prebuilds.domain.ids import OrganizationId
from prebuilds.reconciler.hints import HELD_AGAIN_AFTER, Hints
from prebuilds.reconciler.queries.pools import Extent
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.quota import lock_quota
from tests.support.builders import claim_prebuild, make_organization, make_pool, make_user
from tests.support.pools import IMPATIENT, Passes, allow, count_tries, make_reconciler, pools_told_of


@pytest_asyncio.fixture
async def organization(database: Database) -> OrganizationId:
    return await make_organization(database)


@pytest_asyncio.fixture
async def passes(database: Database, organization: OrganizationId) -> Passes:
    """Passes over one pool of four prebuilds."""
    return Passes(database, await make_pool(database, organization, instances=4))


async def make_costly(passes: Passes, cost: int) -> None:
    """Build one prebuild of the pool, so that its cost is known, and have it claimed; the pool then wants none."""
    await passes.set_preset(desired_instances=1)
    await passes.run()
    async with passes.database.transaction("test") as tx:
        await tx.execute(update(schema.Build).values(daily_cost=cost))
        await tx.execute(update(schema.Prebuild).values(daily_cost=cost))
    await passes.stage.make_eligible(passes.preset_id)
    user = await make_user(passes.database, f"claimant of {passes.preset_id}")
    await claim_prebuild(passes.database, passes.pool, user)
    await passes.set_preset(desired_instances=0)


async def used(passes: Passes) -> Sequence[int]:
    """What the prebuilds of the pool are charged."""
    row = schema.Prebuild
    async with passes.database.read("test") as tx:
        costs = await tx.execute(select(row.daily_cost).where(row.preset_id == passes.pool.preset_id))
        return sorted(costs.scalars())


async def test_as_many_are_made_as_the_allowance_admits(passes: Passes, organization: OrganizationId) -> None:
    await make_costly(passes, 5)
    await passes.set_preset(desired_instances=4)
    await allow(passes.database, organization, 12)

    with capture_logs() as logs:
        statistics = [await passes.run() for _ in range(3)]

    assert [each.created for each in statistics] == [2, 0, 0]
    assert [each.reconciled for each in statistics] == [1, 0, 0]
    assert await used(passes) == [5, 5]
    assert (await passes.preset()).over_quota_since is not None
    assert len([line for line in logs if line["event"] == "pool is over quota"]) == 1
    async with passes.database.read("test") as tx:
        charged = await tx.execute(select(schema.Build.daily_cost).where(schema.Build.outcome.is_(None)))
        assert sorted(charged.scalars())[-2:] == [5, 5]
    assert "failed" not in {kind for kind, _ in await passes.history()}


async def test_who_is_over_quota_stays_so_while_the_pool_backs_off(
    passes: Passes, organization: OrganizationId
) -> None:
    await make_costly(passes, 5)
    await passes.set_preset(desired_instances=4)
    await allow(passes.database, organization, 12)
    with capture_logs() as logs:
        await passes.run()
        since = (await passes.preset()).over_quota_since
        await passes.fail(FailureClass.INFRASTRUCTURE)
        passes.config = Config(backoff_interval=timedelta(minutes=10))
        assert [(await passes.run()).reconciled for _ in range(2)] == [0, 0]
        passes.config = IMPATIENT
        await passes.run()

    assert (await passes.preset()).over_quota_since == since
    assert since is not None
    assert len([line for line in logs if "over quota" in line["event"]]) == 1


async def test_a_preset_that_goes_inactive_is_not_on_record_when_it_comes_back(
    passes: Passes, organization: OrganizationId
) -> None:
    await make_costly(passes, 5)
    await passes.set_preset(desired_instances=4)
    await allow(passes.database, organization, 0)
    await passes.run()
    before = (await passes.preset()).over_quota_since
    assert before is not None
    assert await used(passes) == [], "it has no prebuilds that would bring a pass to it"

    for deprecated in ("use the other one", ""):
        async with passes.database.transaction("test") as tx:
            await tx.execute(update(schema.Template).values(deprecated=deprecated))
        extent = Extent(template_ids=frozenset({passes.pool.template_id}))
        assert (await make_reconciler(passes.database).run_pass(extent)).reconciled == 1
        assert (await make_reconciler(passes.database).run_pass(EVERYTHING)).reconciled == 0

    since = (await passes.preset()).over_quota_since
    assert since is not None
    assert since > before


async def test_a_raised_allowance_lets_the_rest_through(passes: Passes, organization: OrganizationId) -> None:
    await make_costly(passes, 5)
    await passes.set_preset(desired_instances=4)
    await allow(passes.database, organization, 12)
    await passes.run()
    since = (await passes.preset()).over_quota_since

    await allow(passes.database, organization, 15)
    assert (await passes.run()).created == 1
    assert (await passes.preset()).over_quota_since == since

    await allow(passes.database, organization, None)
    assert (await passes.run()).created == 1
    assert (await passes.preset()).over_quota_since is None


async def test_what_a_build_turns_out_to_cost_takes_the_place_of_what_was_charged(
    passes: Passes, organization: OrganizationId
) -> None:
    await allow(passes.database, organization, 10)
    await passes.run()
    assert await used(passes) == [0, 0, 0, 0]

    await passes.end(daily_cost=3)

    assert await used(passes) == [3, 3, 3, 3]
    await passes.set_preset(desired_instances=5)
    assert (await passes.run()).created == 0
    assert (await passes.preset()).over_quota_since is not None


async def test_without_an_allowance_nothing_is_charged_or_bounded(passes: Passes) -> None:
    await make_costly(passes, 5)
    await passes.set_preset(desired_instances=4)

    assert (await passes.run()).created == 4

    assert await used(passes) == [0, 0, 0, 0]


async def test_an_allowance_is_for_one_organization(passes: Passes, database: Database) -> None:
    other = await make_organization(database, "other")
    await allow(database, other, 0)
    await make_costly(passes, 5)
    await passes.set_preset(desired_instances=4)

    assert (await passes.run()).created == 4


async def test_all_pools_of_the_organization_share_the_allowance_in_one_pass(
    database: Database, organization: OrganizationId
) -> None:
    pools = [
        Passes(database, await make_pool(database, organization, template=f"t{number}", instances=4))
        for number in range(4)
    ]
    for each in pools:
        await make_costly(each, 1)
    await allow(database, organization, 10)
    for each in pools:
        await each.set_preset(desired_instances=4)

    statistics = await make_reconciler(database, concurrency=4).run_pass(EVERYTHING)

    made = sum([len(await used(each)) for each in pools])
    assert (made, statistics.held_elsewhere, statistics.failed) == (10, 0, 0)
    assert sum([sum(await used(each)) for each in pools]) <= 10


async def test_replicas_together_never_exceed_the_allowance(database: Database, organization: OrganizationId) -> None:
    pools = [
        Passes(database, await make_pool(database, organization, template=f"t{number}", instances=3))
        for number in range(4)
    ]
    for each in pools:
        await make_costly(each, 1)
    await allow(database, organization, 7)
    for each in pools:
        await each.set_preset(desired_instances=3)

    for _ in range(5):
        replicas = [make_reconciler(database, concurrency=3) for _ in range(3)]
        await asyncio.gather(*(each.run_pass(EVERYTHING) for each in replicas))

    assert sum([len(await used(each)) for each in pools]) == 7


async def test_a_quota_that_another_replica_holds_is_passed_over_and_tried_again(
    passes: Passes, organization: OrganizationId
) -> None:
    await allow(passes.database, organization, 10)
    hints = Hints()
    replica = make_reconciler(passes.database, hints=hints)
    async with passes.database.transaction("another replica") as tx:
        assert await lock_quota(tx, organization)
        held = await replica.run_pass(EVERYTHING)
    assert (held.held_elsewhere, held.created) == (1, 0)

    await hints.wakeups.wait(timedelta(seconds=10))

    assert (await replica.run_pass(hints.take())).created == 4


async def test_pools_that_want_a_quota_which_another_replica_holds_are_given_up_and_tried_again_together(
    database: Database, organization: OrganizationId, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = [await make_pool(database, organization, template=f"t{number}", instances=1) for number in range(6)]
    elsewhere = await make_pool(database, await make_organization(database, "elsewhere"), template="u", instances=1)
    await allow(database, organization, 10)
    hints = Hints()
    replica = make_reconciler(database, hints=hints)
    async with database.transaction("another replica") as tx:
        assert await lock_quota(tx, organization)
        tries = count_tries(monkeypatch, database)
        held = await replica.run_pass(EVERYTHING)
        again = await replica.run_pass(EVERYTHING)
    assert (held.held_elsewhere, held.created, len(tries)) == (6, 1, 3)
    assert (again.held_elsewhere, again.seen) == (6, 7)

    await hints.wakeups.wait(timedelta(seconds=10))

    extent = hints.take()
    assert extent == Extent(preset_ids=frozenset(pool.preset_id for pool in pools))
    assert elsewhere.preset_id not in extent.preset_ids
    assert (await replica.run_pass(extent)).created == 6
    assert not await hints.wakeups.wait(HELD_AGAIN_AFTER[1]), "there was one later try for all of them"


async def test_what_a_finished_delete_frees_is_handed_to_who_waited_for_it(
    passes: Passes, database: Database, organization: OrganizationId
) -> None:
    waiting = Passes(database, await make_pool(database, organization, template="waiting", instances=0))
    for each in (passes, waiting):
        await make_costly(each, 4)
    await allow(database, organization, 8)
    await passes.set_preset(desired_instances=2)
    assert (await passes.run()).created == 2
    await passes.end(daily_cost=4)
    await waiting.set_preset(desired_instances=2)
    await passes.run()
    assert (await waiting.preset()).over_quota_since is not None
    await passes.set_preset(desired_instances=0)
    assert (await passes.run()).deleted == 2
    told: list[Extent] = []
    database.on_commit(lambda rows: told.extend(pools_told_of(row) for row in rows))

    await passes.stage.finish(await passes.stage.jobs(passes.preset_id, Transition.DELETE))

    hinted = told[0] | told[-1]
    assert waiting.pool.preset_id not in hinted.preset_ids
    assert (await make_reconciler(database).run_pass(hinted)).created == 2
    assert await used(waiting) == [4, 4]


async def test_deletes_go_on_over_quota_and_make_room_once_they_are_done(
    passes: Passes, organization: OrganizationId
) -> None:
    await allow(passes.database, organization, 8)
    await passes.set_preset(desired_instances=2)
    await passes.run()
    old = await passes.end(daily_cost=4)
    async with passes.database.transaction("test") as tx:
        await tx.run(
            b"UPDATE presets SET last_invalidated_at = clock_timestamp() WHERE id = %(id)s",
            {"id": passes.pool.preset_id},
        )

    statistics = await passes.run()
    assert (statistics.deleted, statistics.created) == (2, 0)
    await passes.stage.finish(await passes.stage.jobs(passes.preset_id, Transition.DELETE))

    assert (await passes.run()).created == 2
    assert len(old) == 2


async def test_a_retry_stays_within_the_allowance(passes: Passes, organization: OrganizationId) -> None:
    await passes.set_preset(desired_instances=1)
    await passes.fail_until_limited()
    await allow(passes.database, organization, 0)
    async with passes.database.transaction("test") as tx:
        await tx.execute(update(schema.Prebuild).values(daily_cost=1))
        await tx.run(b"UPDATE presets SET retry_requested_at = clock_timestamp()")

    assert (await passes.run()).created == 0

    assert (await passes.preset()).over_quota_since is not None
    await allow(passes.database, organization, 3)
    assert (await passes.run()).created == 1
