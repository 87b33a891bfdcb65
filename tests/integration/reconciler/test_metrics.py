"""What reconcilers show of pools: the same on each, exact, and read without a query."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TypeAlias
from uuid import uuid4

import pytest
import pytest_asyncio
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, insert, update

from prebuilds.chassis.process import App
from prebuilds.domain.builds import BuildOutcome, FailureClass
from prebuilds.domain.claims import MissReason
from prebuilds.domain.ids import OrganizationId
from prebuilds.domain.pools import PoolEventKind, PresetStatus
from prebuilds.reconciler.app import open_app
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.measuring import Measuring
from prebuilds.reconciler.metrics import PoolMetrics
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.pools import read_moment
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.store import schema
from prebuilds.store.database import Database, open_database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.pool_events import PoolEvent, record_pool_events
from tests.support.builders import claim_prebuild, make_organization, make_pool, make_user
from tests.support.reconciling import Client, Reconcilers, Stage, make_manifest
from tests.support.waiting import eventually

Labels: TypeAlias = frozenset[tuple[str, str]]
SMALL: Labels = frozenset({("organization", "acme"), ("template", "python-dev"), ("preset", "small")})
NO_LABELS: Labels = frozenset()
COUNTERS = {
    "prebuilds_created_total",
    "prebuilds_failed_total",
    "prebuilds_claimed_total",
    "prebuilds_claim_missed_total",
    "prebuilds_expired_total",
    "prebuilds_deleted_total",
    "prebuilds_canceled_total",
    "prebuilds_resource_replacements_total",
}


class Shown:
    """The instruments of a replica that is not a whole process, read from memory."""

    def __init__(self, database: Database, *, batch: int = 1_000) -> None:
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider(metric_readers=[self._reader], shutdown_on_exit=False)
        self.metrics = PoolMetrics(Measuring(database, batch=batch), self.meter)

    @property
    def meter(self) -> Meter:
        return self._provider.get_meter("test")

    async def refreshed(self) -> Mapping[str, Mapping[Labels, float]]:
        await self.metrics.refresh()
        return self.read()

    def read(self) -> Mapping[str, Mapping[Labels, float]]:
        collected = self._reader.get_metrics_data()
        return {
            metric.name: {
                frozenset((key, str(value)) for key, value in (point.attributes or {}).items()): point.value
                for point in metric.data.data_points
                if isinstance(point, NumberDataPoint)
            }
            for resource in (collected.resource_metrics if collected else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def counters(shown: Mapping[str, Mapping[Labels, float]]) -> Mapping[str, Mapping[Labels, float]]:
    return {name: points for name, points in shown.items() if name in COUNTERS}


def scrape(address: str | None) -> Mapping[str, Metric]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return {family.name: family for family in text_string_to_metric_families(str(answer.read(), "utf-8"))}


def sample(families: Mapping[str, Metric], name: str, labels: Labels = NO_LABELS) -> float | None:
    """The value of a series; labels that are empty are none."""
    for family in families.values():
        for each in family.samples:
            if each.name == name and frozenset(pair for pair in each.labels.items() if pair[1]) == labels:
                return each.value
    return None


@pytest_asyncio.fixture
async def organization(database: Database) -> OrganizationId:
    return await make_organization(database)


@pytest_asyncio.fixture
async def pool(database: Database, organization: OrganizationId) -> PoolKey:
    return await make_pool(database, organization, instances=2)


@pytest.fixture
def shown(database: Database) -> Shown:
    return Shown(database)


@pytest.fixture
def passes(database: Database, shown: Shown) -> Reconciler:
    return Reconciler(database, Hints(), config=Config(), lookback=timedelta(hours=1), concurrency=2, meter=shown.meter)


async def set_preset(database: Database, pool: PoolKey, **values: object) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Preset).where(schema.Preset.id == pool.preset_id).values(**values))


async def set_template(database: Database, pool: PoolKey, **values: object) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Template).where(schema.Template.id == pool.template_id).values(**values))


async def test_a_scrape_shows_pools_under_the_names_of_prometheus(
    reconcilers: Reconcilers, operator: Client, database: Database
) -> None:
    async with database.transaction("test") as tx:
        began = (await read_moment(tx)).at.timestamp()
    await operator.push(make_manifest(instances=3))
    app = await start(reconcilers)
    replica = app.addresses.metrics

    async def families() -> Mapping[str, Metric]:
        return await asyncio.to_thread(scrape, replica)

    async def is_filling() -> bool:
        return sample(await families(), "prebuilds_starting", SMALL) == 3

    await eventually(is_filling)

    found = await families()
    assert sample(found, "prebuilds_created_total", SMALL) == 3
    assert found["prebuilds_created"].type == "counter"
    gauges = {"desired": 3, "running": 0, "eligible": 0, "starting": 3, "extraneous": 0, "waiting": 0}
    assert {name: sample(found, f"prebuilds_{name}", SMALL) for name in gauges} == gauges
    assert {found[f"prebuilds_{name}"].type for name in gauges} == {"gauge"}
    assert sample(found, "prebuilds_reconciliation_paused") == 0
    updated = sample(found, "prebuilds_metrics_last_updated_timestamp_seconds")
    assert updated is not None
    assert updated > began
    assert found["prebuilds_reconciliation_duration_seconds"].type == "histogram"
    assert found["prebuilds_outbox_lag_seconds"].type == "gauge"
    ours = {each.name for family in found.values() for each in family.samples if each.name.startswith("prebuilds")}
    assert not {name for name in ours if "_total_" in name or "seconds_seconds" in name}


async def start(reconcilers: Reconcilers) -> App:
    """A replica that shows its metrics."""
    settings = reconcilers.settings(metrics_address="127.0.0.1:0", metrics_interval=timedelta(seconds=1))
    return await reconcilers.stack.enter_async_context(open_app(settings))


async def test_before_the_first_reading_there_is_no_series(shown: Shown, pool: PoolKey) -> None:
    assert pool
    assert not any(shown.read().values())


async def test_a_scrape_asks_postgres_nothing(database_url: str, pool: PoolKey) -> None:
    assert pool
    async with open_database(database_url, min_size=1) as database:
        shown = Shown(database)
        first = await shown.refreshed()

    assert shown.read() == first
    assert first["prebuilds_desired"] == {SMALL: 2}


async def test_counters_follow_what_happens_to_prebuilds(
    database: Database, shown: Shown, passes: Reconciler, stage: Stage, pool: PoolKey
) -> None:
    await passes.run_pass(EVERYTHING)
    await stage.make_eligible(str(pool.preset_id))
    await claim_prebuild(database, pool, await make_user(database))
    await passes.run_pass(EVERYTHING)
    await stage.finish(await stage.jobs(str(pool.preset_id)), BuildOutcome.FAILED, FailureClass.TEMPLATE)
    await set_preset(database, pool, last_invalidated_at=func.now())
    await passes.run_pass(EVERYTHING)

    seen = counters(await shown.refreshed())

    assert seen["prebuilds_created_total"] == {SMALL: 3}
    assert seen["prebuilds_claimed_total"] == {SMALL: 1}
    assert seen["prebuilds_failed_total"] == {SMALL | {("class", "template")}: 1}
    assert seen["prebuilds_expired_total"] == {SMALL: 1}
    assert "prebuilds_deleted_total" not in seen


async def test_each_kind_of_event_has_its_counter(database: Database, shown: Shown, pool: PoolKey) -> None:
    await happen(database, pool, PoolEventKind)

    seen = counters(await shown.refreshed())

    assert set(seen) == COUNTERS
    assert all(sum(points.values()) == 1 for points in seen.values())
    assert set(seen["prebuilds_claim_missed_total"]) == {SMALL | {("reason", "none_ready")}}


async def test_creations_that_match_no_preset_are_counted_without_one(
    database: Database, shown: Shown, pool: PoolKey
) -> None:
    miss = PoolEvent(
        pool.organization_id, pool.template_id, "", PoolEventKind.MISSED, reason=MissReason.NO_MATCHING_PRESET
    )
    async with database.transaction("test") as tx:
        await record_pool_events(tx, [miss])

    (labels,) = (await shown.refreshed())["prebuilds_claim_missed_total"]

    assert ("preset", "") in labels
    assert ("reason", "no_matching_preset") in labels


async def test_replicas_show_the_same_counters_before_and_after_a_restart(
    database: Database, database_url: str, pool: PoolKey
) -> None:
    async with open_database(database_url, min_size=1) as one, open_database(database_url, min_size=1) as other:
        first, second = Shown(one, batch=7), Shown(other, batch=5)
        for _ in range(20):
            await asyncio.gather(
                happen(database, pool, PoolEventKind), first.metrics.refresh(), second.metrics.refresh()
            )
        seen = counters(await first.refreshed())
        assert counters(await second.refreshed()) == seen

    assert counters(await Shown(database).refreshed()) == seen
    assert {name: sum(points.values()) for name, points in seen.items()} == dict.fromkeys(COUNTERS, 20)


async def test_two_reconcilers_show_the_same_after_each_has_worked(
    reconcilers: Reconcilers, operator: Client, stage: Stage
) -> None:
    (preset,) = (await operator.push(make_manifest(instances=2))).presets
    jobs = await eventually(lambda: stage.jobs(preset.id))
    replicas = [await start(reconcilers), await start(reconcilers)]
    await stage.finish(jobs, BuildOutcome.FAILED, FailureClass.INFRASTRUCTURE)
    failed = SMALL | {("class", "infrastructure")}

    async def shown_by(app: App) -> list[float | None]:
        found = await asyncio.to_thread(scrape, app.addresses.metrics)
        return [
            sample(found, "prebuilds_created_total", SMALL),
            sample(found, "prebuilds_failed_total", failed),
        ]

    async def agree() -> bool:
        return [await shown_by(app) for app in replicas] == [[2, 2], [2, 2]]

    await eventually(agree)


async def test_a_deleted_template_is_gone_from_all_metrics(
    database: Database, shown: Shown, passes: Reconciler, pool: PoolKey
) -> None:
    await passes.run_pass(EVERYTHING)
    assert (await shown.refreshed())["prebuilds_created_total"] == {SMALL: 2}
    await set_template(database, pool, deleted=True)
    draining = await shown.refreshed()
    assert (draining["prebuilds_desired"], draining["prebuilds_starting"]) == ({SMALL: 0}, {SMALL: 2})

    await passes.run_pass(EVERYTHING)

    gone = await shown.refreshed()
    assert not [name for name, points in gone.items() if SMALL in points]


async def test_what_is_wrong_with_a_preset_is_shown_while_it_is_so(
    database: Database, shown: Shown, pool: PoolKey
) -> None:
    for status, name in (
        (PresetStatus.HARD_LIMITED, "prebuilds_preset_hard_limited"),
        (PresetStatus.VALIDATION_FAILED, "prebuilds_preset_validation_failed"),
    ):
        await set_preset(database, pool, status=status)
        assert (await shown.refreshed())[name] == {SMALL: 1}
        await set_template(database, pool, deprecated="use the other one")
        assert name not in await shown.refreshed()
        await set_template(database, pool, deprecated="")
    await set_preset(database, pool, status=PresetStatus.HEALTHY)
    assert not {name for name in await shown.refreshed() if name.startswith("prebuilds_preset_")}


async def test_pauses_are_shown_where_they_are(database: Database, shown: Shown, pool: PoolKey) -> None:
    assert (await shown.refreshed())["prebuilds_reconciliation_paused"] == {NO_LABELS: 0}
    await set_template(database, pool, paused_at=func.now())
    assert (await shown.refreshed())["prebuilds_reconciliation_paused"] == {NO_LABELS: 0, SMALL: 1}
    await set_template(database, pool, paused_at=None)
    async with database.transaction("test") as tx:
        await tx.execute(insert(schema.Setting).values(key="reconciliation_pause", value={}))
    assert (await shown.refreshed())["prebuilds_reconciliation_paused"] == {NO_LABELS: 1}


async def test_those_who_wait_are_counted(database: Database, shown: Shown, pool: PoolKey) -> None:
    values = {
        "organization_id": pool.organization_id,
        "preset_id": pool.preset_id,
        "user_id": await make_user(database),
    }
    async with database.transaction("test") as tx:
        for lease in (timedelta(hours=1), timedelta(hours=1), timedelta(hours=-1)):
            await tx.execute(
                insert(schema.Waiting).values(**values, request_id=str(uuid4()), lease_expires_at=func.now() + lease)
            )

    assert (await shown.refreshed())["prebuilds_waiting"] == {SMALL: 2}


async def happen(database: Database, pool: PoolKey, kinds: Iterable[PoolEventKind]) -> None:
    """One of each of these."""
    events = [
        PoolEvent(
            pool.organization_id,
            pool.template_id,
            pool.preset_name,
            kind,
            reason=MissReason.NONE_READY if kind is PoolEventKind.MISSED else "test",
            failure_class=FailureClass.TEMPLATE if kind is PoolEventKind.FAILED else None,
        )
        for kind in kinds
    ]
    async with database.transaction("test") as tx:
        await record_pool_events(tx, events)
