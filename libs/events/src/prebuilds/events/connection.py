"""The process's one connection to NATS: made in the background, made again for ever, never a reason not to start.

Authority: none. Whatever goes through here is a hint that Postgres holds the truth of, so being away is a state and not
an error.

States::

    away --(a server took us, and the streams are declared)--> connected --(the connection broke)--> away ...

Each time that we are connected there is a new `Session`, with a nats-py client of its own that does not reconnect. That
is on purpose: nats-py's own reconnecting replays what was buffered while it was away, pull requests and stale
acknowledgements among it, keeps requests waiting that can no longer be answered, and ends silently when an exception
of an unforeseen kind escapes it. A new session starts from nothing that could be stale; who uses it (relay,
subscriptions) is told that the old one is lost and begins again, which they must be able to do anyway.

Crash points: a session that is lost loses what was in flight. What was published and not acknowledged stays in the
outbox; what was delivered and not acknowledged is delivered again, or looked for by who missed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import nats.errors
import structlog
from nats.aio.client import Client
from opentelemetry.metrics import CallbackOptions, Meter, NoOpMeter, Observation

from prebuilds.chassis.cancellation import heed_cancellation
from prebuilds.chassis.logs import clean_text
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.events.jetstream import JetStreamError
from prebuilds.events.streams import StreamLimits, declare_streams

CONNECT_TIMEOUT: Final = timedelta(seconds=2)
PING_INTERVAL: Final = timedelta(seconds=3)
"""A peer that is silently gone is noticed after three of these."""

_MIN_PAUSE: Final = 0.05  # seconds
_MAX_PAUSE: Final = 2.0  # seconds
_CLOSE_TIMEOUT: Final = 2  # seconds
_LOG_EVERY: Final = 30.0  # seconds

_log = structlog.stdlib.get_logger(__name__)


class Session:
    """One connection, from being usable to being lost."""

    def __init__(self, client: Client) -> None:
        """Start with a client that is connected."""
        self.client: Final = client
        self._lost = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []
        self.streams_missing: Final = asyncio.Event()
        """Set it where a stream turned out to be gone; they are declared again."""

    @property
    def is_lost(self) -> bool:
        """Whether it is of no use any more."""
        return self._lost.is_set()

    async def lost(self) -> None:
        """Wait until it is lost."""
        await self._lost.wait()

    def on_lost(self, watcher: Callable[[], None]) -> None:
        """Call this when it is lost, at once where it is already."""
        self._watchers.append(watcher)
        if self.is_lost:
            watcher()

    def lose(self) -> None:
        """Declare it lost."""
        if not self.is_lost:
            self._lost.set()
            for watcher in self._watchers:
                watcher()


class Events:
    """The way to NATS of this process; `open_events` makes it."""

    def __init__(self) -> None:
        """Begin away."""
        self._session: Session | None = None
        self._came = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether events can go out and come in, for health and logs; services work without, only slower."""
        return self.session is not None

    @property
    def session(self) -> Session | None:
        """The present session."""
        return self._session if self._session is not None and not self._session.is_lost else None

    async def connected(self) -> Session:
        """Wait for a session."""
        while (session := self.session) is None:
            await self._came.wait()
        return session

    def enter(self, session: Session) -> None:
        """Begin a session."""
        self._session = session
        self._came.set()
        session.on_lost(self._came.clear)

    def leave(self) -> None:
        """End it."""
        self._session = None
        self._came.clear()


@contextlib.asynccontextmanager
async def open_events(
    url: str,
    *,
    name: str = "prebuilds",
    credentials_file: Path | None = None,
    tls: ssl.SSLContext | None = None,
    streams: StreamLimits | None = None,
    meter: Meter | None = None,
    wait_for_connection: timedelta = timedelta(seconds=3),
) -> AsyncGenerator[Events]:
    """Open the connection to the NATS servers of `url` (several joined by commas) and keep it until the end.

    Returns when it is connected, or at the first failure, or after `wait_for_connection`: with NATS away it goes on
    trying in the background. `name` is what NATS shows of this client.
    """
    events = Events()
    connector = _Connector(
        events, url, name=name, credentials_file=credentials_file, tls=tls, streams=streams or StreamLimits()
    )

    def connected(_: CallbackOptions) -> list[Observation]:
        return [Observation(int(events.is_connected))]

    (meter or NoOpMeter("prebuilds")).create_observable_gauge(
        "prebuilds_events_connected", [connected], description="1 while connected to NATS, else 0."
    )
    async with BackgroundTasks() as tasks:
        tasks.spawn("events connection", connector.run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_for_connection.total_seconds()):
                await connector.tried.wait()
        yield events


class _Connector:
    """Connects, again and again."""

    def __init__(
        self,
        events: Events,
        url: str,
        *,
        name: str,
        credentials_file: Path | None,
        tls: ssl.SSLContext | None,
        streams: StreamLimits,
    ) -> None:
        self.tried: Final = asyncio.Event()
        """Set once the first try is over, one way or the other."""
        self._events = events
        self._servers = [server.strip() for server in url.split(",") if server.strip()]
        self._name = name
        self._credentials_file = credentials_file
        self._tls = tls
        self._streams = streams
        self._logged_at = float("-inf")

    async def run(self) -> None:
        """Run for ever."""
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._live()
            except Exception as error:  # noqa: BLE001 - a loop's body: whatever broke, we try again
                self._say("NATS is away", error)
            self.tried.set()
            heed_cancellation()
            failures = 0 if asyncio.get_running_loop().time() - began > _MAX_PAUSE else failures + 1
            longest = min(_MAX_PAUSE, _MIN_PAUSE * 2**failures)
            await asyncio.sleep(random.uniform(_MIN_PAUSE, longest))  # noqa: S311 - jitter

    async def _live(self) -> None:
        """Live through one session."""
        client = Client()
        session = Session(client)

        async def closed() -> None:
            session.lose()

        try:
            await self._connect(client, closed)
            await declare_streams(client, self._streams)
            heed_cancellation()
            self._events.enter(session)
            self.tried.set()
            self._logged_at = float("-inf")
            _log.info("NATS connected", server=_address(client))
            await self._keep(session)
            _log.warning("NATS connection was lost", server=_address(client), cause=_plain(client.last_error))
        finally:
            self._events.leave()
            session.lose()
            await _close(client)

    async def _connect(self, client: Client, closed: Callable[[], object]) -> None:
        await client.connect(
            self._servers,
            name=self._name,
            error_cb=_report,
            closed_cb=closed,  # pyright: ignore[reportArgumentType] - a coroutine function, as nats-py wants it
            allow_reconnect=False,
            # One more try for each server, then the pause is ours.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=CONNECT_TIMEOUT.total_seconds(),  # pyright: ignore[reportArgumentType] - any number will do
            ping_interval=PING_INTERVAL.total_seconds(),  # pyright: ignore[reportArgumentType] - any number will do
            user_credentials=None if self._credentials_file is None else str(self._credentials_file),
            tls=self._tls,
            # Nothing is kept for a connection that is not there.
            pending_size=0,
        )

    async def _keep(self, session: Session) -> None:
        """Declare the streams again whenever somebody misses them, until the session is lost."""
        session.on_lost(session.streams_missing.set)
        while True:
            await session.streams_missing.wait()
            if session.is_lost:
                return
            session.streams_missing.clear()
            try:
                await declare_streams(session.client, self._streams)
            except (JetStreamError, OSError, nats.errors.Error) as error:
                self._say("streams cannot be declared", error)
            heed_cancellation()
            # Whoever misses them still will say so again; not faster than this.
            await asyncio.sleep(_MIN_PAUSE)

    def _say(self, what: str, error: Exception) -> None:
        """Log it the first time and then now and then."""
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            _log.warning(what, servers=len(self._servers), cause=_plain(error))


async def _report(error: Exception) -> None:
    """Log what nats-py has to say."""
    _log.debug("NATS client reported", cause=_plain(error))


async def _close(client: Client) -> None:
    """Send what is still to be sent and close; a connection that does not let itself be closed is abandoned."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            if client.is_connected:
                await client.flush(_CLOSE_TIMEOUT)
            await client.close()
    except (OSError, TimeoutError, nats.errors.Error) as error:
        _log.debug("NATS connection was abandoned", cause=_plain(error))


def _address(client: Client) -> str:
    """Host and port, without user and password."""
    url = client.connected_url
    return "" if url is None else f"{url.hostname}:{url.port}"


def _plain(error: BaseException | None) -> str:
    return "" if error is None else clean_text(f"{type(error).__name__}: {error}"[:300])
