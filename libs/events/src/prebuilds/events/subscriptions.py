"""Subscriptions: how a service hears events.

Authority: none of this. A hint says only look again, so everything here may lose, repeat and reorder, as long as the
reader is told when it may have missed something: `on_recreated`, called each time that a consumer was made (the first
time too). A reader then goes through all that it holds, once.

**Pull consumers**, durable and ephemeral alike, and not push ones:

- while a request waits at the server, a pulled event comes as fast as a pushed one;
- what is under way is bounded by what was asked for, so a slow reader is no "slow consumer" that the server cuts off;
- replicas share a durable consumer just by asking, without a queue group (which knows no heartbeats);
- a request is answered by heartbeats, and by a status when its consumer is deleted: its loss is noticed at once or
  within seconds. A push consumer that is gone is silent.

The requests are made here and not by nats-py's `fetch`, which hides those answers and creates tasks for each message.

States of a subscription::

    waiting --(session)--> declaring --(consumer made, request sent, on_recreated called)--> live
    live --(consumer deleted | no heartbeat | request refused)--> declaring      live --(session lost)--> waiting

An ephemeral consumer is never taken up again: each declaring makes a new one from now on, the old one is deleted or
dies of inactivity. A durable one goes on where it was; hints that became old meanwhile are dropped by their age.

Crash points:

- before a hint is acknowledged: it is delivered again after `ack_wait`, to any replica (durable), or lost with its
  consumer (ephemeral, whose process starts with a look at everything);
- a handler that fails: delivered again after a pause; at the last delivery buried in `PREBUILDS_DLQ` with its cause
  and ended. Where even that fails it is only logged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeAlias

import nats.errors
import structlog
from nats.aio.msg import Msg
from opentelemetry.metrics import Meter, NoOpMeter
from opentelemetry.trace import NoOpTracer, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from prebuilds.chassis.cancellation import heed_cancellation
from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.events.bodies import Hint, to_hint
from prebuilds.events.connection import Events, Session
from prebuilds.events.consumers import Subscription
from prebuilds.events.dead_letters import bury, describe
from prebuilds.events.jetstream import JetStreamError
from prebuilds.events.pulling import Pull

Handler: TypeAlias = Callable[[Hint], Awaitable[None]]
"""Takes a hint and looks. It must be quick, or hand the work on: hints behind it wait."""
Recreated: TypeAlias = Callable[[], Awaitable[None]]

READY_WITHIN: Final = timedelta(seconds=5)

_MIN_PAUSE: Final = 0.05  # seconds
_MAX_PAUSE: Final = 2.0  # seconds

_log = structlog.stdlib.get_logger(__name__)
_propagator = TraceContextTextMapPropagator()


class Subscribed:
    """A running subscription; `subscribe` makes it."""

    def __init__(
        self,
        events: Events,
        subscription: Subscription,
        handler: Handler,
        *,
        on_recreated: Recreated | None,
        tracer: Tracer,
        meter: Meter,
        clock: Clock,
    ) -> None:
        """Nothing runs yet."""
        self._events = events
        self._subscription = subscription
        self._handler = handler
        self._on_recreated = on_recreated
        self._tracer = tracer
        self._clock = clock
        self._handled = meter.create_counter(
            "prebuilds_events_handled_total",
            description="Hints by event and outcome: handled, stale, failed (to be tried again), buried.",
        )
        self._made = 0
        self._live = asyncio.Event()
        self._settled = asyncio.Event()
        """Set once it was live, or its first session was lost before."""
        self._queue: asyncio.Queue[tuple[Session, Msg]] = asyncio.Queue()

    @property
    def is_live(self) -> bool:
        """Whether the server knows the consumer and hints come."""
        return self._live.is_set()

    @property
    def times_created(self) -> int:
        """How often a consumer was made, the first time included."""
        return self._made

    async def live(self) -> None:
        """Wait until it is live."""
        await self._live.wait()

    def start(self, tasks: BackgroundTasks) -> None:
        """Run it in these tasks."""
        name = self._subscription.name
        tasks.spawn(f"subscription {name}", self._run())
        for number in range(self._subscription.workers):
            tasks.spawn(f"subscription {name} worker {number}", self._work())

    async def wait_until_ready(self) -> None:
        """Wait until it is live; at once where NATS is away, and never longer than 5 s."""
        session = self._events.session
        if session is None:
            return
        session.on_lost(self._settled.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN.total_seconds()):
                await self._settled.wait()

    async def give_back(self) -> None:
        """Return what was delivered and not begun, so that another replica gets it at once."""
        while not self._queue.empty():
            session, message = self._queue.get_nowait()
            if not session.is_lost:
                with contextlib.suppress(OSError, nats.errors.Error):
                    await message.nak()

    async def _run(self) -> None:
        while True:
            session = await self._events.connected()
            pull = Pull(session, self._subscription, lambda message, by=session: self._queue.put_nowait((by, message)))
            try:
                await pull.open()
                await self._live_through(session, pull)
            except (OSError, nats.errors.Error) as error:
                if not session.is_lost:
                    _log.info(
                        "subscription was interrupted", subscription=self._subscription.name, cause=describe(error)
                    )
                    await asyncio.sleep(_MIN_PAUSE)
            finally:
                self._live.clear()
                await pull.close()
            heed_cancellation()

    async def _live_through(self, session: Session, pull: Pull) -> None:
        """Make one consumer after the other until the session is lost."""
        failures = 0
        while not session.is_lost:
            began = asyncio.get_running_loop().time()
            try:
                await pull.make_consumer()
                await pull.request()
                self._made += 1
                self._live.set()
                self._settled.set()
                _log.info("consumer was made", consumer=pull.consumer, times=self._made)
                await self._tell_recreated()
                cause = await pull.keep_asking()
            except JetStreamError as error:
                cause = str(error)
                if error.is_not_found:
                    session.streams_missing.set()
            finally:
                self._live.clear()
            if session.is_lost:
                return
            failures = 0 if asyncio.get_running_loop().time() - began > _MAX_PAUSE else failures + 1
            _log.warning("consumer was lost", consumer=pull.consumer, cause=cause)
            await asyncio.sleep(min(_MAX_PAUSE, _MIN_PAUSE * 2 ** min(failures, 10)))

    async def _tell_recreated(self) -> None:
        if self._on_recreated is None:
            return
        try:
            await self._on_recreated()
        except Exception:  # noqa: BLE001 - a loop's body: the consumer is there, and the reader looks again by itself
            _log.exception("reader failed to look at everything", subscription=self._subscription.name)

    async def _work(self) -> None:
        while True:
            session, message = await self._queue.get()
            try:
                await self._deliver(session, message)
            except (OSError, nats.errors.Error) as error:
                # The answer did not get out: it is delivered again.
                _log.debug("hint was not acknowledged", cause=describe(error))
            heed_cancellation()

    async def _deliver(self, session: Session, message: Msg) -> None:
        hint = to_hint(message.subject, message.data, message.headers)
        if hint is None:
            _log.warning("event is unknown here", subject=message.subject)
            await message.term()
            return
        if hint.is_stale(self._clock.now()):
            self._count(hint, "stale")
            await message.ack()
            return
        try:
            await self._handle(hint)
        except Exception as error:  # noqa: BLE001 - a loop's body: every failure of a handler is the same to us
            await self._after_failure(session, message, hint, error)
            return
        self._count(hint, "handled")
        await message.ack()

    async def _handle(self, hint: Hint) -> None:
        parent = _propagator.extract({"traceparent": hint.traceparent}) if hint.traceparent else None
        attributes = {
            "messaging.system": "nats",
            "messaging.operation.type": "process",
            "messaging.destination.subscription.name": self._subscription.name,
            "prebuilds.event": hint.event.value,
            "prebuilds.subject_id": str(hint.subject_id),
        }
        # An exception's text may hold values of rows, so it stays out of the trace.
        with self._tracer.start_as_current_span(
            f"process {hint.event}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                # Given up before the server gives up on us and delivers it again.
                async with asyncio.timeout(0.9 * self._subscription.ack_wait.total_seconds()):
                    await self._handler(hint)
            except Exception as error:
                span.set_status(StatusCode.ERROR, type(error).__name__)
                raise

    async def _after_failure(self, session: Session, message: Msg, hint: Hint, error: Exception) -> None:
        deliveries = message.metadata.num_delivered
        if deliveries < self._subscription.max_deliver:
            pauses = self._subscription.retry_after
            await message.nak(delay=pauses[min(deliveries, len(pauses)) - 1].total_seconds())
            self._count(hint, "failed")
            _log.warning(
                "hint was not handled",
                hint=hint.event,
                id=hint.subject_id,
                deliveries=deliveries,
                cause=describe(error),
            )
            return
        try:
            await bury(
                session.client,
                message,
                consumer=self._subscription.name,
                cause=error,
                deliveries=deliveries,
                failed_at=self._clock.now(),
            )
        except (JetStreamError, OSError, nats.errors.Error) as failure:
            _log.error("dead letter was lost", hint=hint.event, id=hint.subject_id, cause=describe(failure))
        await message.term()
        self._count(hint, "buried")
        _log.error("hint was given up", hint=hint.event, id=hint.subject_id, deliveries=deliveries, exc_info=error)

    def _count(self, hint: Hint, outcome: str) -> None:
        self._handled.add(1, {"event": hint.event, "outcome": outcome})


@contextlib.asynccontextmanager
async def subscribe(
    events: Events,
    subscription: Subscription,
    handler: Handler,
    *,
    on_recreated: Recreated | None = None,
    tracer: Tracer | None = None,
    meter: Meter | None = None,
    clock: Clock | None = None,
) -> AsyncGenerator[Subscribed]:
    """Hear these events until the end; begins when the server knows the consumer, or at once where NATS is away.

    So what happens from here on is heard, and what stood before is in Postgres: subscribe first, then read.
    """
    subscribed = Subscribed(
        events,
        subscription,
        handler,
        on_recreated=on_recreated,
        tracer=tracer or NoOpTracer(),
        meter=meter or NoOpMeter("prebuilds"),
        clock=clock or SystemClock(),
    )
    async with BackgroundTasks() as tasks:
        subscribed.start(tasks)
        await subscribed.wait_until_ready()
        yield subscribed
    await subscribed.give_back()
