"""The relay against a real Postgres and a real NATS; each crash point of its docstring is a test here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from nats.aio.client import Client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from prebuilds.chassis.clock import SystemClock
from prebuilds.domain.events import EventKind
from prebuilds.embedded.nats import EmbeddedNats
from prebuilds.events.bodies import to_wire
from prebuilds.events.connection import Events, open_events
from prebuilds.events.jetstream import ask, publish
from prebuilds.events.publishing import Published, Publisher
from prebuilds.events.relay import RelayLimits, open_relay
from prebuilds.events.streams import STREAM
from prebuilds.store.database import Database
from prebuilds.store.outbox import sweep as outbox
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.outbox.writer import append
from tests.support.nats import nats_client, stored
from tests.support.waiting import eventually

TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
NEVER: Final = timedelta(hours=1)
SWEEPING: Final = RelayLimits(sweep_every=timedelta(milliseconds=50), sweep_older_than=timedelta(0))
NOT_SWEEPING: Final = RelayLimits(sweep_older_than=NEVER)


@pytest_asyncio.fixture
async def client(nats_url: str) -> AsyncGenerator[Client]:
    async with nats_client(nats_url) as connected:
        yield connected


@pytest_asyncio.fixture
async def events(nats_url: str) -> AsyncGenerator[Events]:
    async with open_events(nats_url) as opened:
        yield opened


async def write(database: Database, count: int = 1) -> list[OutboxRow]:
    async with database.transaction("test") as tx:
        for _ in range(count):
            await append(
                tx,
                EventKind.CLAIMED,
                uuid4(),
                organization_id=uuid4(),
                payload={"claim_id": str(uuid4())},
                traceparent=TRACEPARENT,
            )
        return list(tx.appended)


async def write_and_fail(database: Database) -> None:
    async with database.transaction("test") as tx:
        await append(tx, EventKind.CLAIMED, uuid4(), organization_id=None)
        raise ZeroDivisionError


async def rows_left(database: Database) -> int:
    async with database.read("test") as tx:
        return await tx.fetch_one(b"SELECT count(*) FROM outbox", row=int) or 0


async def until_empty(database: Database) -> None:
    async def is_empty() -> bool:
        return await rows_left(database) == 0

    await eventually(is_empty, what="the outbox is empty")


async def until_stored(client: Client, ids: Collection[UUID]) -> None:
    async def are_there() -> bool:
        return set(map(str, ids)) <= set(await stored_ids(client))

    await eventually(are_there, what="the events are in the stream")


async def stored_ids(client: Client) -> list[str]:
    return [message.headers["Nats-Msg-Id"] for message in await stored(client)]


async def test_what_is_committed_is_published_and_removed(database: Database, events: Events, client: Client) -> None:
    async with open_relay(database, events, limits=NOT_SWEEPING):
        (row,) = await write(database)
        await until_empty(database)
    (message,) = await stored(client)
    expected = to_wire(row)
    assert (message.subject, message.body) == (expected.subject, expected.body)
    assert message.headers["traceparent"] == TRACEPARENT
    assert message.headers["Nats-Msg-Id"] == str(row.id)


async def test_a_rollback_publishes_nothing(database: Database, events: Events, client: Client) -> None:
    async with open_relay(database, events, limits=SWEEPING) as relay:
        with pytest.raises(ZeroDivisionError):
            await write_and_fail(database)
        assert relay.is_idle
        rows = await write(database)
        await until_empty(database)
    assert await stored_ids(client) == [str(row.id) for row in rows]


async def test_a_thousand_events_are_in_flight_at_once(database: Database, events: Events, client: Client) -> None:
    async with open_relay(database, events, limits=NOT_SWEEPING):
        rows = await write(database, 1000)
        await until_empty(database)
    assert (await ask(client, f"STREAM.INFO.{STREAM}"))["state"]["messages"] == len(rows)


async def test_what_is_committed_while_nats_is_down_goes_out_when_it_is_back(
    database: Database, restartable_nats: EmbeddedNats
) -> None:
    async with open_events(restartable_nats.url) as events, open_relay(database, events, limits=SWEEPING) as relay:
        session = await events.connected()
        restartable_nats.kill()
        await asyncio.wait_for(session.lost(), 10)
        rows = await write(database, 20)
        sweep = await relay.sweep()
        assert sweep.leased == 0
        assert sweep.lag > timedelta(0)
        assert await rows_left(database) == len(rows)

        restartable_nats.start()
        async with nats_client(restartable_nats.url) as client:
            await until_stored(client, [row.id for row in rows])
        await until_empty(database)
        assert relay.is_idle


async def test_nats_killed_in_the_middle_loses_nothing(database: Database, restartable_nats: EmbeddedNats) -> None:
    limits = RelayLimits(
        sweep_every=timedelta(milliseconds=50), sweep_older_than=timedelta(0), lease_for=timedelta(seconds=1)
    )
    async with open_events(restartable_nats.url) as events, open_relay(database, events, limits=limits):
        rows: list[OutboxRow] = []
        for _ in range(3):
            rows += await write(database, 300)
            restartable_nats.kill()
            rows += await write(database, 100)
            restartable_nats.start()
            await asyncio.wait_for(events.connected(), 10)
        await until_empty(database)
        # Everything was acknowledged by a server that had it: no event is missing, and none is there twice.
        async with nats_client(restartable_nats.url) as client:
            ids = await stored_ids(client)
    assert sorted(ids) == sorted(str(row.id) for row in rows)


async def test_a_sweeper_takes_what_a_dead_process_has_left(database: Database, events: Events, client: Client) -> None:
    rows = await write(database, 5)  # by a process without a relay
    async with open_relay(database, events, limits=SWEEPING):
        await until_empty(database)
    assert sorted(await stored_ids(client)) == sorted(str(row.id) for row in rows)


async def test_young_rows_are_left_to_their_writer(database: Database, events: Events, client: Client) -> None:
    (young,) = await write(database)
    (old,) = await write(database)
    async with database.transaction("test") as tx:
        await tx.run(b"UPDATE outbox SET created_at = created_at - interval '2h' WHERE id = %(id)s", {"id": old.id})
    async with open_relay(database, events, limits=RelayLimits(sweep_older_than=timedelta(hours=1))) as relay:
        await until_stored(client, [old.id])
        await eventually(lambda: relay.is_idle)
    assert await rows_left(database) == 1
    assert str(young.id) not in await stored_ids(client)


async def test_a_crash_after_the_lease_delays_until_it_runs_out(
    database: Database, events: Events, client: Client
) -> None:
    (row,) = await write(database)
    async with database.transaction("dying sweeper") as tx:
        taken = await outbox.lease(tx, older_than=timedelta(0), lease_for=timedelta(milliseconds=300), limit=10)
    assert [each.id for each in taken] == [row.id]
    async with open_relay(database, events, limits=SWEEPING) as relay:
        assert (await relay.sweep()).leased == 0
        await until_empty(database)
    assert await stored_ids(client) == [str(row.id)]


async def test_a_crash_between_publishing_and_removing_is_no_second_event(
    database: Database, events: Events, client: Client
) -> None:
    (row,) = await write(database)
    wire = to_wire(row)
    await publish(client, wire.subject, wire.body, wire.headers)  # and dies

    async with open_relay(database, events, limits=SWEEPING):
        await until_empty(database)

    assert await stored_ids(client) == [str(row.id)]


async def test_several_relays_lose_nothing_and_publish_nothing_twice(
    database: Database, nats_url: str, client: Client
) -> None:
    rows = await write(database, 2000)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            events = await stack.enter_async_context(open_events(nats_url))
            await stack.enter_async_context(open_relay(database, events, limits=SWEEPING))
        rows += await write(database, 200)
        await until_empty(database)
    assert sorted(await stored_ids(client)) == sorted(str(row.id) for row in rows)


async def test_what_does_not_fit_the_pipeline_is_left_to_the_sweeper(
    database: Database, events: Events, client: Client
) -> None:
    limits = RelayLimits(capacity=3, sweep_every=timedelta(milliseconds=50), sweep_older_than=timedelta(0))
    async with open_relay(database, events, limits=limits):
        rows = await write(database, 50)
        await until_empty(database)
    assert sorted(await stored_ids(client)) == sorted(str(row.id) for row in rows)


async def test_a_deleted_stream_is_declared_again_and_gets_what_is_left(
    database: Database, events: Events, client: Client
) -> None:
    limits = RelayLimits(
        sweep_every=timedelta(milliseconds=50), sweep_older_than=timedelta(0), lease_for=timedelta(milliseconds=100)
    )
    async with open_relay(database, events, limits=limits):
        await ask(client, f"STREAM.DELETE.{STREAM}")
        rows = await write(database, 30)
        await until_empty(database)
    assert sorted(await stored_ids(client)) == sorted(str(row.id) for row in rows)


async def test_closing_lets_out_what_is_in_the_pipeline(database: Database, events: Events, client: Client) -> None:
    async with open_relay(database, events, limits=NOT_SWEEPING) as relay:
        rows = await write(database, 200)
    assert relay.is_idle
    assert await rows_left(database) == 0
    assert len(await stored_ids(client)) == len(rows)


async def test_a_closed_relay_leaves_everything_in_the_outbox(database: Database, events: Events) -> None:
    async with open_relay(database, events, limits=NOT_SWEEPING):
        pass
    await write(database)
    assert await rows_left(database) == 1


async def test_what_is_not_acknowledged_in_time_is_given_up() -> None:
    class Silent:
        def new_inbox(self) -> str:
            return "_INBOX.x"

        async def publish(self, *_: Any, **__: Any) -> None:
            pass

    settled: list[Published] = []
    silent: Any = Silent()
    publisher = Publisher(silent, settled.append, acknowledged_within=timedelta(0), clock=SystemClock())
    row = OutboxRow(uuid4(), EventKind.CLAIMED, uuid4(), None, {}, None, LONG_AGO)
    await publisher.send(row)
    assert publisher.in_flight == 1
    publisher.give_up_overdue()
    assert [(each.event_id, each.cause) for each in settled] == [(row.id, "not acknowledged in time")]
    assert publisher.in_flight == 0


async def test_lag_and_publications_are_measured(database: Database, events: Events) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader], shutdown_on_exit=False).get_meter("test")
    await write(database, 2)
    async with open_relay(database, events, limits=NOT_SWEEPING, meter=meter) as relay:
        await relay.sweep()
        assert measured(reader, "prebuilds_outbox_lag_seconds") == relay.lag.total_seconds() > 0
        await write(database, 3)
        await eventually(lambda: measured(reader, "prebuilds_events_published_total") == 3)


async def test_offering_neither_waits_nor_raises_without_nats(
    database: Database, restartable_nats: EmbeddedNats
) -> None:
    restartable_nats.stop()
    async with open_events(restartable_nats.url) as events, open_relay(database, events) as relay:
        relay.offer([OutboxRow(uuid4(), EventKind.CLAIMED, uuid4(), None, {}, None, LONG_AGO)])
        assert relay.is_idle


def measured(reader: InMemoryMetricReader, name: str) -> float | None:
    data: Any = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == name:
                    return sum(point.value for point in metric.data.data_points)
    return None
