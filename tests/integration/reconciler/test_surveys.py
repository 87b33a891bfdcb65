"""What a pass reads of many pools at once, against what it would read of each by itself."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from prebuilds.domain.ids import PresetId
from prebuilds.reconciler.planning import Planning
from prebuilds.reconciler.queries.looks import look_at
from prebuilds.reconciler.queries.pools import (
    Extent,
    PresetRow,
    count_prebuilds,
    count_starting,
    read_all_pools,
    read_histories,
    read_moment,
    read_prebuilds,
    read_quotas,
)
from prebuilds.reconciler.queries.surveys import survey
from prebuilds.reconciler.rules.planner import Block, Config, Create, plan
from prebuilds.reconciler.rules.state import Counts, History, count
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.reconciler.wishes import Wishes
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction
from tests.bench.pools import Pools

PRESETS = 120
LOOKBACK = timedelta(hours=1)
CONFIG = Config()
SCRAMBLED = """
    SELECT setseed(0.25);
    UPDATE presets SET desired_instances = (random() * 7)::int WHERE random() < 0.2;
    UPDATE presets SET last_invalidated_at = now() - random() * interval '7 h' WHERE random() < 0.1;
    UPDATE presets SET status = 'hard_limited', retry_requested_at = now() - interval '1 min' WHERE random() < 0.1;
    UPDATE presets SET status = 'validation_failed' WHERE random() < 0.05;
    UPDATE presets SET paused_at = now() WHERE random() < 0.05;
    UPDATE presets SET over_quota_since = now() WHERE random() < 0.1;
    UPDATE presets SET timezone = 'Nowhere' WHERE timezone <> '' AND random() < 0.2;
    UPDATE templates SET max_starting = 1 + (random() * 3)::int WHERE random() < 0.4;
    UPDATE templates SET paused_at = now() WHERE name = 'template-1';
    UPDATE templates SET deprecated = 'old' WHERE name = 'template-2';
    UPDATE templates SET deleted = true WHERE name = 'template-3';
    UPDATE templates AS t SET active_version_id = v.id
    FROM template_versions AS v WHERE v.template_id = t.id AND v.number = 1 AND t.name = 'template-4';
    UPDATE groups SET quota_allowance = 500 WHERE name = 'prebuilds' AND random() < 0.5;
    UPDATE prebuilds SET state = (ARRAY['starting', 'stopping', 'stopped', 'deleting', 'failed', 'canceled'])[
        1 + (random() * 5)::int
    ] WHERE random() < 0.3;
    UPDATE prebuilds SET delete_marked_at = now() WHERE state = 'running' AND random() < 0.1;
    DELETE FROM prebuilds WHERE random() < 0.1;
    DELETE FROM prebuilds WHERE preset_id IN (SELECT id FROM presets WHERE random() < 0.1);
    UPDATE jobs SET status = 'pending', lease_id = NULL, attempt = (random() * 1)::int WHERE random() < 0.3;
    UPDATE jobs SET status = 'canceling' WHERE status <> 'pending' AND random() < 0.2;
    UPDATE builds SET outcome = 'failed', failure_class = (ARRAY['template', 'infrastructure'])[1 + (random())::int]
    WHERE number = 1 AND random() < 0.2;
    UPDATE builds SET outcome = 'canceled' WHERE number = 1 AND outcome = 'succeeded' AND random() < 0.1;
    UPDATE builds SET created_at = now() - random() * interval '2 h' WHERE number = 1 AND random() < 0.5;
"""
"""No state of a pool that could be, and many that could not."""


@pytest.fixture
def pools(database_url: str) -> Pools:
    pools = Pools(database_url, PRESETS, 12)
    pools.make()
    with psycopg.connect(database_url) as connection:
        connection.execute(SCRAMBLED)
    return pools


async def plan_each(tx: Transaction) -> tuple[set[PresetId], set[PresetId], int]:
    """The pools with work, those of them that only create, and how many back off, each planned by itself."""
    moment, wishes = await read_moment(tx), Wishes()
    presets = await read_all_pools(tx)
    ids = [preset.preset_id for preset in presets]
    counts = await count_prebuilds(tx, ids)
    histories = await read_histories(tx, ids, lookback=LOOKBACK, hard_limit=CONFIG.hard_limit)
    starting = await count_starting(tx, sorted({preset.template_id for preset in presets}))
    quotas = await read_quotas(tx, ids)
    plans = {
        preset.preset_id: plan(
            wishes.policy_of(preset),
            counts.get(preset.preset_id, Counts()),
            histories.get(preset.preset_id, History()),
            moment.at,
            CONFIG,
            template_starting=starting.get(preset.template_id, 0),
            quota=quotas.get(preset.preset_id),
        )
        for preset in presets
        if preset.paused_at is None
    }
    with_work = {preset_id for preset_id, made in plans.items() if made.has_work}
    creating = {
        preset_id
        for preset_id, made in plans.items()
        if made.status is None
        and made.is_over_quota is None
        and all(isinstance(action, Create) for action in made.actions)
    }
    return with_work, creating & with_work, sum(Block.BACKING_OFF in made.blocks for made in plans.values())


async def test_pools_that_are_planned_together_get_the_plans_that_they_would_get_alone(
    database: Database, pools: Pools
) -> None:
    planning = Planning(config=CONFIG, lookback=LOOKBACK)
    async with database.read("test", snapshot=True) as tx:
        snapshot = await planning.take_snapshot(tx, EVERYTHING)
        with_work, creating, backing_off = await plan_each(tx)
        presets = await read_all_pools(tx)

    work = {preset.preset_id for preset in snapshot.work}
    bounded = {preset.preset_id for preset in presets if preset.max_starting is not None or preset.has_allowance}
    assert work - bounded == with_work - bounded
    # Of what a bound leaves each gets its share, not each all of it.
    assert with_work - work <= bounded & creating
    assert snapshot.backing_off == backing_off > 0
    assert snapshot.seen == len(presets)
    assert snapshot.paused == sum(preset.paused_at is not None for preset in presets) > 0
    assert 0 < len(with_work) < len(presets)


async def test_everything_some_and_one_are_read_alike(database: Database, pools: Pools) -> None:
    async with database.read("test", snapshot=True) as tx:
        ids = [preset.preset_id for preset in await read_all_pools(tx)]
        of_all = await survey(tx, None, lookback=LOOKBACK, hard_limit=3)
        of_some = await survey(tx, ids, lookback=LOOKBACK, hard_limit=3)
        of_each = [each for id_ in ids for each in await survey(tx, [id_], lookback=LOOKBACK, hard_limit=3)]

    assert {id_ for each in of_all for id_ in each.preset_ids} == set(ids)
    assert len(of_all) < len(ids) == len(of_each)
    by_id = {id_: (each.counts, each.history, each.status) for each in of_all for id_ in each.preset_ids}
    assert by_id == {id_: (each.counts, each.history, each.status) for each in of_some for id_ in each.preset_ids}
    assert by_id == {each.preset_ids[0]: (each.counts, each.history, each.status) for each in of_each}


async def test_a_look_at_one_pool_shows_what_is_read_of_it_piece_by_piece(database: Database, pools: Pools) -> None:
    async with database.read("test", snapshot=True) as tx:
        moment = await read_moment(tx)
        presets = await read_all_pools(tx)
        ids = [preset.preset_id for preset in presets]
        prebuilds = await read_prebuilds(tx, ids)
        histories = await read_histories(tx, ids, lookback=LOOKBACK, hard_limit=3)
        counts = await count_prebuilds(tx, ids)
        for preset in presets:
            look = await look_at(tx, preset.preset_id, lookback=LOOKBACK, hard_limit=3)
            assert look is not None
            assert {name: getattr(look.preset, name) for name in PresetRow.__slots__} == {
                name: getattr(preset, name) for name in PresetRow.__slots__
            }
            assert look.at == moment.at
            assert look.is_paused is (preset.paused_at is not None)
            assert sorted(look.prebuilds, key=str) == sorted(prebuilds.get(preset.preset_id, []), key=str)
            assert look.history == histories.get(preset.preset_id, History())
            counted = count(Wishes().policy_of(preset), look.prebuilds, look.at)
            in_sql = counts.get(preset.preset_id, Counts())
            # Who is eligible of an inactive version does not show.
            assert (counted.running, counted.expired) == (in_sql.running, in_sql.expired)
            assert (counted.starting, counted.queued) == (in_sql.starting, in_sql.queued)


@pytest.mark.parametrize("named", ["presets", "templates", "organizations", "workspaces"])
async def test_hints_lead_to_their_pools_and_to_no_others(database: Database, pools: Pools, named: str) -> None:
    planning = Planning(config=CONFIG, lookback=LOOKBACK)
    async with database.read("test", snapshot=True) as tx:
        presets = await read_all_pools(tx)
        example = next(preset for preset in presets if preset.is_active and preset.desired_instances)
        prebuilds = await read_prebuilds(tx, [preset.preset_id for preset in presets])
        owner, owned = next((preset_id, own) for preset_id, own in prebuilds.items() if len(own) > 1)
        extent, expected = {
            "presets": (
                Extent(preset_ids=frozenset({example.preset_id, owner})),
                {example.preset_id, owner},
            ),
            "templates": (
                Extent(template_ids=frozenset({example.template_id})),
                {preset.preset_id for preset in presets if preset.template_id == example.template_id},
            ),
            "organizations": (
                Extent(organization_ids=frozenset({example.organization_id})),
                {preset.preset_id for preset in presets if preset.organization_id == example.organization_id},
            ),
            "workspaces": (Extent(workspace_ids=frozenset(each.workspace_id for each in owned)), {owner}),
        }[named]
        snapshot = await planning.take_snapshot(tx, extent)
        everything = await planning.take_snapshot(tx, EVERYTHING)

    assert snapshot.seen == len(expected)
    worked = {preset.preset_id for preset in everything.work}
    assert {preset.preset_id for preset in snapshot.work} == worked & expected


async def test_statements_about_few_pools_are_planned_once_and_not_each_time(database: Database, pools: Pools) -> None:
    async with database.read("test") as tx:
        ids = [preset.preset_id for preset in await read_all_pools(tx)]
        for preset_id in ids[:40]:
            await look_at(tx, preset_id, lookback=LOOKBACK, hard_limit=3)
            await survey(tx, [preset_id], lookback=LOOKBACK, hard_limit=3)
            await survey(tx, [preset_id, ids[-1]], lookback=LOOKBACK, hard_limit=3)
        cursor = await tx.run(
            b"SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement ~ '^-- (Look|Survey)'"
        )
        planned = await cursor.fetchall()

    assert len(planned) == 3
    # Postgres plans the first five times to learn what that costs.
    assert all(generic > 20 and custom == 5 for generic, custom in planned), planned
