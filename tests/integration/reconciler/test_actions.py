"""What one pass does to a pool, in which order, and what it leaves on record."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import func, select
from structlog.testing import capture_logs

from prebuilds.domain.builds import BuildOutcome, BuildReason, FailureClass, Transition
from prebuilds.domain.ids import SYSTEM_USER_ID
from prebuilds.reconciler import planning
from prebuilds.reconciler.planning import Snapshot
from prebuilds.reconciler.queries.pools import Extent
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.rules.state import Counts
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.jobs.queueing import BuildOrder, queue_builds
from prebuilds.store.pool.beginnings import begin_build_of_prebuild
from prebuilds.store.pool.locks import lock_prebuild_and_workspace
from prebuilds.store.sql import SqlFolder
from tests.support.builders import end_build, make_organization, make_pool, make_user
from tests.support.pools import Passes, make_reconciler


@pytest_asyncio.fixture
async def passes(database: Database) -> Passes:
    """Passes over one pool of three prebuilds."""
    return Passes(database, await make_pool(database, await make_organization(database), instances=3))


async def invalidate(passes: Passes) -> None:
    async with passes.database.transaction("test") as tx:
        await tx.run(
            b"UPDATE presets SET last_invalidated_at = clock_timestamp() WHERE id = %(id)s",
            {"id": passes.pool.preset_id},
        )


async def test_invalidated_prebuilds_are_replaced_in_the_same_pass(passes: Passes) -> None:
    await passes.run()
    await passes.end(most=2)
    await invalidate(passes)

    statistics = await passes.run()

    assert (statistics.deleted, statistics.created) == (2, 2)
    assert await passes.stage.states(passes.preset_id) == ["deleting"] * 2 + ["starting"] * 3
    assert (await passes.run()).reconciled == 0


async def test_deletes_are_on_record_before_creates_each_with_its_reason(passes: Passes) -> None:
    await passes.run()
    old, *_ = await passes.end()
    await passes.set_preset(ttl=timedelta(hours=1))
    await passes.stage.age(old, timedelta(hours=2))
    await passes.run()
    await passes.end()
    await passes.set_preset(desired_instances=1)
    await passes.run()
    await passes.set_template(deleted=True)
    await passes.run()

    assert await passes.history() == [
        *[("created", "below_target")] * 3,
        ("expired", "expired"),
        ("created", "below_target"),
        *[("deleted", "extraneous")] * 2,
        ("deleted", "inactive"),
    ]


async def test_the_oldest_go_first_in_order_of_their_ids_where_they_are_equally_old(passes: Passes) -> None:
    await passes.run()
    built = sorted(await passes.end())
    await passes.stage.age(built[2], timedelta(hours=1))
    await passes.set_preset(desired_instances=1)

    await passes.run()

    row = schema.Prebuild
    async with passes.database.read("test") as tx:
        kept = await tx.execute(select(row.workspace_id).where(row.state == "running"))
        assert kept.scalars().all() == [built[1]]


async def test_parked_prebuilds_are_left_alone_and_in_nobodys_place(passes: Passes) -> None:
    await passes.run()
    parked, *_ = await passes.end()
    person = await make_user(passes.database)
    async with passes.database.transaction("test") as tx:
        await lock_prebuild_and_workspace(tx, parked)
        await begin_build_of_prebuild(tx, parked, Transition.STOP)
        (stop,) = await queue_builds(tx, [BuildOrder(parked, Transition.STOP, BuildReason.USER, person)])
    replaced = await passes.run()
    await end_build(passes.database, stop.job_id)
    await passes.end()

    assert (replaced.created, replaced.deleted) == (1, 0)
    assert (await passes.run()).reconciled == 0
    await invalidate(passes)
    await passes.run()
    await passes.set_template(deprecated="gone")
    await passes.run()
    assert "stopped" in await passes.stage.states(passes.preset_id)
    assert (await passes.run()).reconciled == 0


async def test_failed_and_canceled_prebuilds_are_replaced_and_kept(passes: Passes) -> None:
    await passes.run()
    await passes.end(BuildOutcome.FAILED, FailureClass.INFRASTRUCTURE, most=1)
    await passes.end(BuildOutcome.CANCELED, most=1)

    statistics = await passes.run()

    assert (statistics.created, statistics.deleted) == (2, 0)
    assert await passes.stage.states(passes.preset_id) == ["canceled", "failed", "starting", "starting", "starting"]
    failed = [reason for kind, reason in await passes.history() if kind == "failed"]
    assert failed == ["start failed"]


async def test_a_template_bounds_how_many_of_its_prebuilds_start_at_once(passes: Passes) -> None:
    await passes.set_template(max_starting=2)

    assert [(await passes.run()).created for _ in range(2)] == [2, 0]
    await passes.end(most=1)
    assert (await passes.run()).created == 1


async def test_the_place_of_a_start_that_is_being_canceled_is_free(passes: Passes) -> None:
    await passes.set_template(max_starting=3)
    await passes.run()
    first, *_ = await passes.jobs()
    async with passes.database.transaction("test") as tx:
        await tx.run(
            b"UPDATE jobs SET status = 'canceling', attempt = 1, lease_id = gen_random_uuid(),"
            b" lease_expires_at = now() + interval '1 min', cancel_requested_at = now() WHERE id = %(id)s",
            {"id": first},
        )

    assert (await passes.run()).created == 1


async def test_a_pause_set_after_the_snapshot_is_honoured(passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = make_reconciler(passes.database)
    take_snapshot = replica.take_snapshot

    async def take_and_pause(extent: Extent) -> Snapshot:
        snapshot = await take_snapshot(extent)
        await passes.set_preset(paused_at=func.now())
        return snapshot

    monkeypatch.setattr(replica, "take_snapshot", take_and_pause)

    statistics = await replica.run_pass(EVERYTHING)

    assert (statistics.paused, statistics.reconciled, statistics.skipped, statistics.created) == (1, 0, 0, 0)
    assert await passes.jobs() == []


async def test_statistics_say_what_became_of_every_pool(database: Database) -> None:
    organization = await make_organization(database)
    names = ["full", "short", "paused", "failing", "inactive"]
    pools = {
        name: Passes(database, await make_pool(database, organization, template=name, instances=1)) for name in names
    }
    await pools["paused"].set_preset(paused_at=func.now())
    await make_reconciler(database).run_pass(EVERYTHING)
    await pools["short"].set_preset(desired_instances=3)
    await pools["failing"].fail(FailureClass.INFRASTRUCTURE)
    await pools["inactive"].end()
    await pools["inactive"].set_template(deleted=True)

    statistics = await make_reconciler(database, config=Config()).run_pass(EVERYTHING)

    assert (statistics.seen, statistics.skipped, statistics.reconciled, statistics.paused) == (5, 2, 2, 1)
    assert (statistics.created, statistics.deleted, statistics.backing_off) == (2, 1, 1)
    assert (statistics.held_elsewhere, statistics.failed, statistics.canceled) == (0, 0, 0)


async def test_counts_that_contradict_each_other_are_cut_and_cried_about(
    passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def miscount(*_: Any) -> Counts:
        return Counts(running=0, expired=2)

    monkeypatch.setattr(planning, "count", miscount)

    with capture_logs() as logs:
        statistics = await passes.run()

    assert statistics.created == 3
    (cried,) = [line for line in logs if line["log_level"] == "critical"]
    assert cried["target"] == 3


async def test_the_history_of_pools_is_read_from_its_index(passes: Passes, database_url: str) -> None:
    await passes.run()
    await passes.end(BuildOutcome.FAILED, FailureClass.TEMPLATE)
    async with passes.database.transaction("test") as tx:
        # Much history, of this preset and of others.
        await tx.run(
            b"""
            WITH version AS (
                INSERT INTO presets (
                    organization_id, template_id, version_id, name, is_default, desired_instances
                )
                SELECT organization_id, template_id, version_id, 'other-' || n, false, 1
                FROM presets CROSS JOIN generate_series(1, 200) AS n
                RETURNING id
            )
            INSERT INTO builds (
                organization_id, workspace_id, number, version_id, preset_id, transition, reason, generation, owner_id,
                owner_name, workspace_name, initiator_id, parameters, outcome, created_at, finished_at
            )
            SELECT
                b.organization_id, b.workspace_id, 1 + row_number() OVER (PARTITION BY b.workspace_id), b.version_id,
                p.id, 'start', 'prebuild', 0, b.owner_id, '', '', b.initiator_id, '{}', 'succeeded',
                b.created_at - n * interval '1 hour', now()
            FROM builds AS b
            CROSS JOIN (SELECT id FROM version UNION ALL SELECT preset_id FROM builds) AS p (id)
            CROSS JOIN generate_series(1, 50) AS n
            """
        )
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("ANALYZE builds, presets")
        cursor = await connection.execute("SELECT array_agg(id) FROM presets")
        (preset_ids,) = await cursor.fetchone() or ([],)
        cursor = await connection.execute(
            b"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + SqlFolder("prebuilds.reconciler.queries")["histories"],
            {
                "preset_ids": preset_ids,
                "lookback": timedelta(hours=1),
                "hard_limit": 3,
                "system_user_id": SYSTEM_USER_ID,
            },
        )
        (plans,) = await cursor.fetchone() or ([],)
    found = list(nodes(plans[0]["Plan"]))

    scans = [node for node in found if node.get("Relation Name") == "builds"]
    assert scans
    assert "Seq Scan" not in {node["Node Type"] for node in scans}
    assert {node["Index Name"] for node in found if node.get("Alias") == "b" and "Index Name" in node} == {
        "ix_builds_pool_history"
    }
    assert len(preset_ids) == 201
    # Of all others only the newest build is looked at, not even those within the lookback.
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scans) < 3 * len(preset_ids)


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(below for child in plan.get("Plans", ()) for below in nodes(child))]
