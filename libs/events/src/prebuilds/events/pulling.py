"""Pulling: the requests by which events come, and how the loss of a consumer shows.

One request waits at the server at a time. It ends when it has brought all that it asked for, by a status (expired,
consumer deleted, nobody there), or silently with its session. Between its answers the server sends heartbeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Listening

from prebuilds.chassis.cancellation import heed_cancellation
from prebuilds.events.connection import Session
from prebuilds.events.consumers import Subscription
from prebuilds.events.jetstream import (
    API,
    DESCRIPTION,
    NO_RESPONDERS,
    STATUS,
    JetStreamError,
    ask,
    listen,
    nanoseconds,
)
from prebuilds.events.streams import STREAM

_HEARTBEAT: Final = "100"
_REQUEST_OVER: Final = frozenset({"404", "408"})
_CONFLICT: Final = "409"
_PASSING: Final = ("Leadership Change", "Batch Completed", "Exceeded Max")

_log = structlog.stdlib.get_logger(__name__)


class Pull:
    """The requests of one subscription on one session: one consumer after the other, one request after the other."""

    def __init__(self, session: Session, subscription: Subscription, take: Callable[[Msg], None]) -> None:
        """Give each event to `take`; `open` comes first."""
        self.consumer = subscription.name
        self._session = session
        self._client = session.client
        self._subscription = subscription
        self._take = take
        self._inbox = self._client.new_inbox()
        self._listening: Listening | None = None
        self._requests = 0
        self._expected = 0
        """How many more events the present request may bring; 0 where it is over."""
        self._trouble: str | None = None
        self._heard_at = 0.0
        self._changed = asyncio.Event()
        session.on_lost(self._changed.set)

    async def open(self) -> None:
        """Listen for answers to all requests."""
        self._listening = await listen(self._client, f"{self._inbox}.*", self._received)

    async def close(self) -> None:
        """Leave, and take a consumer that is nobody else's away."""
        if self._session.is_lost:
            return
        with contextlib.suppress(JetStreamError, OSError, TimeoutError, nats.errors.Error):
            async with asyncio.timeout(1):
                if self._listening is not None:
                    # Without it the server gives nothing more to the request that waits there.
                    await self._listening.unsubscribe()
                await self._delete_own()

    async def make_consumer(self) -> None:
        """Make the consumer, or bring the durable one up to date."""
        subscription = self._subscription
        # What still comes for an earlier request, the end of its deleted consumer above all, is not about the new one.
        self._requests += 1
        self._trouble = None
        if not subscription.is_shared:
            await self._delete_own()
            self.consumer = f"{subscription.name}-{uuid4().hex}"
        config = subscription.consumer_config(self.consumer)
        what = f"CONSUMER.CREATE.{STREAM}.{self.consumer}"
        try:
            await ask(self._client, what, {"stream_name": STREAM, "config": config})
        except JetStreamError as error:
            if error.is_not_found or not subscription.is_shared:
                raise
            # Some of its configuration cannot be changed; what it still had to deliver were hints.
            _log.warning("consumer is replaced", consumer=self.consumer, cause=str(error))
            await ask(self._client, f"CONSUMER.DELETE.{STREAM}.{self.consumer}")
            await ask(self._client, what, {"stream_name": STREAM, "config": config})

    async def request(self) -> None:
        """Ask for the next events, to be sent whenever they come."""
        subscription = self._subscription
        self._requests += 1
        self._expected = subscription.at_once
        self._heard_at = asyncio.get_running_loop().time()
        body = {
            "batch": subscription.at_once,
            "expires": nanoseconds(subscription.request_for),
            "idle_heartbeat": nanoseconds(subscription.heartbeat),
        }
        await self._client.publish(
            f"{API}.CONSUMER.MSG.NEXT.{STREAM}.{self.consumer}", json.dumps(body).encode(), reply=self._reply()
        )

    async def keep_asking(self) -> str:
        """Ask again whenever a request is over; ends, with the cause, when the consumer or the session is lost."""
        patience = 2.5 * self._subscription.heartbeat.total_seconds()
        loop = asyncio.get_running_loop()
        while not self._session.is_lost:
            heed_cancellation()
            self._changed.clear()
            if self._trouble is not None:
                return self._trouble
            if self._expected <= 0:
                await self.request()
                heed_cancellation()
            remaining = self._heard_at + patience - loop.time()
            if remaining <= 0:
                return "no heartbeat"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(remaining):
                    await self._changed.wait()
        return "connection lost"

    async def _received(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        status = (message.headers or {}).get(STATUS)
        if status is None:
            self._expected -= 1
            self._take(message)
            if self._expected <= 0:
                self._changed.set()
        elif status != _HEARTBEAT and message.subject == self._reply():
            self._request_ended(status, (message.headers or {}).get(DESCRIPTION, ""))

    def _request_ended(self, status: str, description: str) -> None:
        passing = status == _CONFLICT and description.startswith(_PASSING)
        if status in _REQUEST_OVER or passing:
            self._expected = 0
        else:
            self._trouble = "no such consumer" if status == NO_RESPONDERS else f"{description} ({status})"
        self._changed.set()

    def _reply(self) -> str:
        return f"{self._inbox}.{self._requests}"

    async def _delete_own(self) -> None:
        if self._subscription.is_shared or self.consumer == self._subscription.name:
            return
        consumer, self.consumer = self.consumer, self._subscription.name
        with contextlib.suppress(JetStreamError):
            await ask(self._client, f"CONSUMER.DELETE.{STREAM}.{consumer}")
