"""Requests to JetStream's API, as JSON over plain NATS requests.

The protocol itself and not nats-py's methods for it: those drop the fields of a stream's configuration that they do not
know, and would so undo what an operator has set.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final, cast

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import NoRespondersError

API: Final = "$JS.API"
API_TIMEOUT: Final = timedelta(seconds=5)

STATUS: Final = "Status"
DESCRIPTION: Final = "Description"
"""Headers of messages by which a server says something itself."""
NO_RESPONDERS: Final = "503"

NOT_FOUND: Final = 404
UNAVAILABLE: Final = 503
STREAM_NAME_IN_USE: Final = 10058
"""Error code of a stream that exists with another configuration."""


class JetStreamError(Exception):
    """JetStream's own answer that it will not; `code` is like HTTP's, `err_code` is exact."""

    def __init__(self, code: int, description: str, err_code: int = 0) -> None:
        """Keep what it said."""
        super().__init__(f"{description} ({code}, {err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description

    @property
    def is_not_found(self) -> bool:
        """Whether the stream or consumer does not exist."""
        return self.code == NOT_FOUND


async def ask(
    client: Client, what: str, payload: Mapping[str, object] | None = None, *, timeout: timedelta = API_TIMEOUT
) -> Mapping[str, Any]:
    """Ask `$JS.API.<what>` and give its answer; raises JetStreamError, or an error of nats-py when none comes."""
    body = b"" if payload is None else json.dumps(payload).encode()
    try:
        answer = await client.request(f"{API}.{what}", body, timeout=timeout.total_seconds())
    except NoRespondersError as error:
        raise JetStreamError(UNAVAILABLE, "JetStream is not available") from error
    content = cast("Mapping[str, Any]", json.loads(answer.data))
    raise_for(content)
    return content


async def publish(
    client: Client, subject: str, body: bytes, headers: Mapping[str, str], *, timeout: timedelta = API_TIMEOUT
) -> None:
    """Publish one message and wait until a stream has it."""
    try:
        answer = await client.request(subject, body, timeout=timeout.total_seconds(), headers=dict(headers))
    except NoRespondersError as error:
        raise JetStreamError(UNAVAILABLE, "no stream takes this subject") from error
    raise_for(json.loads(answer.data))


async def listen(client: Client, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
    """Subscribe; the callback gets one message after the other."""
    return await client.subscribe(subject, cb=callback)  # pyright: ignore[reportUnknownMemberType] - a bare Future in it


def raise_for(content: Mapping[str, Any]) -> None:
    """Raise the error that an answer holds, if it holds one."""
    error = content.get("error")
    if error is not None:
        raise JetStreamError(error.get("code", 0), error.get("description", ""), error.get("err_code", 0))


def nanoseconds(length: timedelta) -> int:
    """Spell a length of time as JetStream does."""
    return length // timedelta(microseconds=1) * 1000
