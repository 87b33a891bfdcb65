"""Subscriptions against a real NATS: what a reader hears, and what it is told when it may have missed something."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest_asyncio
from nats.aio.client import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from prebuilds.domain.events import EventKind
from prebuilds.embedded.nats import EmbeddedNats
from prebuilds.events.bodies import Hint, to_wire
from prebuilds.events.connection import Events, open_events
from prebuilds.events.consumers import Subscription
from prebuilds.events.jetstream import ask, publish
from prebuilds.events.streams import DEAD_LETTERS, STREAM
from prebuilds.events.subjects import format_subject
from prebuilds.events.subscriptions import subscribe
from prebuilds.store.outbox.rows import OutboxRow
from tests.support.clock import ManualClock
from tests.support.nats import nats_client, stored
from tests.support.waiting import eventually

GATEWAY: Final = Subscription.per_process("gateway", EventKind.HANDOVER_DUE, EventKind.AGENT_REVOKED)
RECONCILER: Final = Subscription.shared("reconciler", EventKind.CLAIMED, EventKind.HANDOVER_DUE)
SOON: Final = timedelta(milliseconds=10)


class Reader:
    """Keeps what it hears, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.hints: list[Hint] = []
        self.looked_at_everything = 0
        self.tries = 0
        self._failures = failures

    async def hear(self, hint: Hint) -> None:
        self.tries += 1
        if self.tries <= self._failures:
            raise ValueError("no sense in it: postgresql://alice:secret@db/x")
        self.hints.append(hint)

    async def look_at_everything(self) -> None:
        self.looked_at_everything += 1

    def heard(self) -> list[UUID]:
        return [hint.subject_id for hint in self.hints]

    async def until_heard(self, *ids: UUID) -> None:
        await eventually(lambda: set(ids) <= set(self.heard()), what="the hints are heard")


@pytest_asyncio.fixture
async def client(nats_url: str) -> AsyncGenerator[Client]:
    async with nats_client(nats_url) as connected:
        yield connected


@pytest_asyncio.fixture
async def events(nats_url: str) -> AsyncGenerator[Events]:
    async with open_events(nats_url) as opened:
        yield opened


async def tell(client: Client, event: EventKind = EventKind.HANDOVER_DUE, **changes: Any) -> UUID:
    values: dict[str, Any] = {"created_at": datetime.now(UTC), "payload": {}, "traceparent": None, **changes}
    row = OutboxRow(uuid4(), event, uuid4(), uuid4(), **values)
    wire = to_wire(row)
    await publish(client, wire.subject, wire.body, wire.headers)
    return row.subject_id


async def consumers(client: Client) -> list[str]:
    return list((await ask(client, f"CONSUMER.NAMES.{STREAM}"))["consumers"] or ())


async def test_what_happens_after_subscribing_is_heard(events: Events, client: Client) -> None:
    reader = Reader()
    await tell(client)
    async with subscribe(events, GATEWAY, reader.hear, on_recreated=reader.look_at_everything) as subscribed:
        assert subscribed.is_live
        told = await tell(client)
        await reader.until_heard(told)
    assert reader.heard() == [told]  # not what was before, which stands in Postgres
    assert reader.looked_at_everything == 1


async def test_only_events_that_were_asked_for_are_heard(events: Events, client: Client) -> None:
    reader = Reader()
    async with subscribe(events, GATEWAY, reader.hear):
        await tell(client, EventKind.CLAIMED)
        told = await tell(client, EventKind.AGENT_REVOKED)
        await reader.until_heard(told)
    assert reader.heard() == [told]


async def test_every_process_hears_every_event(events: Events, client: Client) -> None:
    one, other = Reader(), Reader()
    async with subscribe(events, GATEWAY, one.hear), subscribe(events, GATEWAY, other.hear):
        told = await tell(client)
        await one.until_heard(told)
        await other.until_heard(told)


async def test_replicas_share_a_durable_consumer(nats_url: str, events: Events, client: Client) -> None:
    one, other = Reader(), Reader()
    async with (
        open_events(nats_url) as others,
        subscribe(events, RECONCILER, one.hear),
        subscribe(others, RECONCILER, other.hear),
    ):
        told = [await tell(client) for _ in range(50)]
        await eventually(lambda: set(told) <= {*one.heard(), *other.heard()})
        assert len(one.hints) + len(other.hints) == len(told)


async def test_a_durable_consumer_goes_on_where_it_was(events: Events, client: Client) -> None:
    reader = Reader()
    async with subscribe(events, RECONCILER, reader.hear):
        await reader.until_heard(await tell(client))
    told = await tell(client)
    async with subscribe(events, RECONCILER, reader.hear):
        await reader.until_heard(told)
    assert await consumers(client) == ["reconciler"]


async def test_an_ephemeral_consumer_is_gone_with_its_reader(events: Events, client: Client) -> None:
    async with subscribe(events, GATEWAY, Reader().hear):
        assert len(await consumers(client)) == 1
    assert await consumers(client) == []


async def test_more_events_than_one_request_asks_for_are_heard(events: Events, client: Client) -> None:
    reader = Reader()
    async with subscribe(events, replace(GATEWAY, at_once=8), reader.hear):
        told = [await tell(client) for _ in range(50)]
        await reader.until_heard(*told)


async def test_a_request_that_ran_out_is_made_again(events: Events, client: Client) -> None:
    reader = Reader()
    brief = replace(GATEWAY, request_for=timedelta(milliseconds=200), heartbeat=timedelta(milliseconds=100))
    async with subscribe(events, brief, reader.hear, on_recreated=reader.look_at_everything) as subscribed:
        consumer = (await consumers(client))[0]

        async def has_expired() -> bool:
            # The server counts requests that wait; in between there is none.
            return (await ask(client, f"CONSUMER.INFO.{STREAM}.{consumer}"))["num_waiting"] == 0

        await eventually(has_expired)
        await reader.until_heard(await tell(client))
        assert subscribed.times_created == 1


async def test_a_body_that_cannot_be_parsed_is_heard_as_the_hint_of_its_subject(events: Events, client: Client) -> None:
    reader = Reader()
    subject_id = uuid4()
    async with subscribe(events, GATEWAY, reader.hear):
        await publish(client, format_subject(EventKind.HANDOVER_DUE, subject_id), b"\xff\xff\xff", {})
        await reader.until_heard(subject_id)
    assert reader.hints[0].message is None


async def test_hints_older_than_a_minute_are_dropped(events: Events, client: Client) -> None:
    reader = Reader()
    clock = ManualClock()
    async with subscribe(events, replace(GATEWAY, workers=1), reader.hear, clock=clock):
        await tell(client, created_at=clock.now() - timedelta(seconds=61))
        young = await tell(client, created_at=clock.now() - timedelta(seconds=59))
        ageless = uuid4()
        await publish(client, f"prebuilds.v1.handover_due.{ageless}", b"", {})
        await reader.until_heard(young, ageless)
    assert reader.heard() == [young, ageless]


async def test_an_unknown_subject_disturbs_nobody(events: Events, client: Client) -> None:
    reader = Reader()
    async with subscribe(events, GATEWAY, reader.hear):
        await publish(client, "prebuilds.v1.handover_due.nonsense", b"", {})
        await reader.until_heard(await tell(client))


async def test_a_handler_that_fails_is_called_again(events: Events, client: Client) -> None:
    reader = Reader(failures=2)
    async with subscribe(events, replace(GATEWAY, retry_after=(SOON,)), reader.hear):
        await reader.until_heard(await tell(client))
    assert reader.tries == 3
    assert await stored(client, DEAD_LETTERS) == []


async def test_a_hint_that_always_fails_becomes_a_dead_letter_with_its_cause(events: Events, client: Client) -> None:
    reader = Reader(failures=1000)
    async with subscribe(events, replace(GATEWAY, retry_after=(SOON,)), reader.hear):
        told = await tell(client)

        async def is_buried() -> bool:
            return len(await stored(client, DEAD_LETTERS)) == 1

        await eventually(is_buried)
    assert reader.tries == GATEWAY.max_deliver
    (letter,) = await stored(client, DEAD_LETTERS)
    (event,) = await stored(client)
    assert letter.subject == f"prebuilds.dlq.v1.gateway.handover_due.{told}"
    assert letter.body == event.body
    assert letter.headers["Prebuilds-Subject"] == event.subject
    assert letter.headers["Prebuilds-Event-Id"] == event.headers["Nats-Msg-Id"]
    assert letter.headers["Prebuilds-Deliveries"] == str(GATEWAY.max_deliver)
    assert letter.headers["Prebuilds-Cause"].startswith("ValueError: no sense in it")
    assert "secret" not in letter.headers["Prebuilds-Cause"]


async def test_a_handler_that_hangs_has_failed(events: Events, client: Client) -> None:
    tries: list[Hint] = []

    async def hang(hint: Hint) -> None:
        tries.append(hint)
        if len(tries) == 1:
            await asyncio.Event().wait()

    brief = replace(GATEWAY, ack_wait=timedelta(milliseconds=200), retry_after=(SOON,))
    async with subscribe(events, brief, hang):
        await tell(client)
        await eventually(lambda: len(tries) >= 2)


async def test_a_deleted_consumer_is_made_again(events: Events, client: Client) -> None:
    for subscription in (GATEWAY, RECONCILER):
        reader = Reader()
        async with subscribe(events, subscription, reader.hear, on_recreated=reader.look_at_everything) as subscribed:
            for consumer in await consumers(client):
                await ask(client, f"CONSUMER.DELETE.{STREAM}.{consumer}")
            await eventually(lambda: subscribed.times_created == 2, what="the consumer is made again")
            await reader.until_heard(await tell(client))
            assert reader.looked_at_everything == 2


async def test_a_deleted_stream_and_its_consumer_are_made_again(events: Events, client: Client) -> None:
    for subscription in (GATEWAY, RECONCILER):
        reader = Reader()
        async with subscribe(events, subscription, reader.hear, on_recreated=reader.look_at_everything) as subscribed:
            await ask(client, f"STREAM.DELETE.{STREAM}")
            await eventually(lambda: subscribed.times_created == 2, what="the consumer is made again")
            await reader.until_heard(await tell(client))
            assert reader.looked_at_everything == 2


async def test_a_purge_loses_events_and_nothing_else(events: Events, client: Client) -> None:
    reader = Reader()
    async with subscribe(events, GATEWAY, reader.hear) as subscribed:
        await reader.until_heard(await tell(client))
        await ask(client, f"STREAM.PURGE.{STREAM}")
        await reader.until_heard(await tell(client))
        assert subscribed.times_created == 1


async def test_a_silent_server_is_noticed_and_the_consumer_made_again(restartable_nats: EmbeddedNats) -> None:
    brief = replace(GATEWAY, heartbeat=timedelta(milliseconds=100))
    async with (
        open_events(restartable_nats.url) as events,
        subscribe(events, brief, Reader().hear) as subscribed,
    ):
        assert restartable_nats.pid is not None
        os.kill(restartable_nats.pid, signal.SIGSTOP)
        try:
            await eventually(lambda: not subscribed.is_live, what="the silence is noticed")
        finally:
            os.kill(restartable_nats.pid, signal.SIGCONT)
        await eventually(lambda: subscribed.is_live and subscribed.times_created >= 2)


async def test_a_restart_of_nats_makes_the_consumer_again(restartable_nats: EmbeddedNats) -> None:
    for subscription in (GATEWAY, RECONCILER):
        reader = Reader()
        async with (
            open_events(restartable_nats.url) as events,
            subscribe(events, subscription, reader.hear, on_recreated=reader.look_at_everything) as subscribed,
        ):
            for times, end in enumerate((restartable_nats.stop, restartable_nats.kill), start=2):
                end()
                restartable_nats.start()
                await eventually(lambda times=times: subscribed.times_created == times and subscribed.is_live)
                async with nats_client(restartable_nats.url) as client:
                    await reader.until_heard(await tell(client))
                assert reader.looked_at_everything == times


async def test_subscribing_does_not_wait_for_a_nats_that_is_away(restartable_nats: EmbeddedNats) -> None:
    restartable_nats.stop()
    reader = Reader()
    async with (
        open_events(restartable_nats.url) as events,
        subscribe(events, GATEWAY, reader.hear, on_recreated=reader.look_at_everything) as subscribed,
    ):
        assert not subscribed.is_live
        assert reader.looked_at_everything == 0
        restartable_nats.start()
        await asyncio.wait_for(subscribed.live(), 10)
        async with nats_client(restartable_nats.url) as client:
            await reader.until_heard(await tell(client))
        assert reader.looked_at_everything == 1


async def test_a_reader_that_fails_to_look_at_everything_still_hears(events: Events, client: Client) -> None:
    async def fail() -> None:
        raise ValueError

    reader = Reader()
    async with subscribe(events, GATEWAY, reader.hear, on_recreated=fail):
        await reader.until_heard(await tell(client))


async def test_the_trace_of_the_row_goes_on_in_the_handler(events: Events, client: Client) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    inside: list[int] = []

    async def hear(hint: Hint) -> None:
        inside.append(trace.get_current_span().get_span_context().trace_id)

    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with subscribe(events, GATEWAY, hear, tracer=provider.get_tracer("test")):
        await tell(client, traceparent=traceparent)
        await eventually(lambda: len(exporter.get_finished_spans()) == 1)
    (span,) = exporter.get_finished_spans()
    assert span.name == "process handover_due"
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert inside == [span.context.trace_id]
