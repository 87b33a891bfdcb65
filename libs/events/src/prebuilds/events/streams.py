"""The streams: `PREBUILDS` with the events, `PREBUILDS_DLQ` with those whose handler failed at their last delivery.

Declared by every server whenever it connects, so that a NATS that lost them gets them again. Declaring is idempotent
and safe among several: a stream that is as it should be is not touched, one that differs is updated, and who loses a
race looks again. What an operator set on a stream and we do not configure (placement, description) is kept. A stream
that exists but cannot or may not be changed is used as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog
from nats.aio.client import Client

from prebuilds.events.jetstream import STREAM_NAME_IN_USE, JetStreamError, ask, nanoseconds
from prebuilds.events.subjects import ALL_EVENTS

STREAM: Final = "PREBUILDS"
DEAD_LETTERS: Final = "PREBUILDS_DLQ"
DEAD_LETTER_PREFIX: Final = "prebuilds.dlq.v1"

_TRIES: Final = 3

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How much the streams keep, and how many servers keep it."""

    max_age: timedelta = timedelta(hours=1)
    max_bytes: int = 256 * 1024**2
    duplicate_window: timedelta = timedelta(minutes=2)
    """An event that is published twice within it is stored once; at most `max_age`."""
    replicas: int = 1
    """Servers that keep a copy: 1, 3 or 5."""
    dead_letter_max_age: timedelta = timedelta(days=7)
    dead_letter_max_bytes: int = 64 * 1024**2


def stream_configs(limits: StreamLimits) -> Mapping[str, Mapping[str, object]]:
    """Give the configuration of both streams, in JetStream's spelling."""
    shared = {"retention": "limits", "discard": "old", "storage": "file", "allow_direct": True}
    return {
        STREAM: {
            **shared,
            "name": STREAM,
            "subjects": [ALL_EVENTS],
            "max_age": nanoseconds(limits.max_age),
            "max_bytes": limits.max_bytes,
            "duplicate_window": nanoseconds(min(limits.duplicate_window, limits.max_age)),
            "num_replicas": limits.replicas,
            # Events are hints of some hundred bytes; anything bigger is a mistake.
            "max_msg_size": 64 * 1024,
        },
        DEAD_LETTERS: {
            **shared,
            "name": DEAD_LETTERS,
            "subjects": [f"{DEAD_LETTER_PREFIX}.>"],
            "max_age": nanoseconds(limits.dead_letter_max_age),
            "max_bytes": limits.dead_letter_max_bytes,
            "duplicate_window": nanoseconds(min(limits.duplicate_window, limits.dead_letter_max_age)),
            "num_replicas": limits.replicas,
            # An event and the cause of its failure.
            "max_msg_size": 128 * 1024,
        },
    }


async def declare_streams(client: Client, limits: StreamLimits) -> None:
    """Bring both streams to this configuration; raises where one is neither there nor can be made."""
    for name, wanted in stream_configs(limits).items():
        await _declare(client, name, wanted)


async def _declare(client: Client, name: str, wanted: Mapping[str, object]) -> None:
    for attempt in range(1, _TRIES + 1):
        present = await _present(client, name)
        if present is None:
            try:
                await ask(client, f"STREAM.CREATE.{name}", wanted)
            except JetStreamError as error:
                # Another server was faster, and configured otherwise.
                if error.err_code != STREAM_NAME_IN_USE or attempt == _TRIES:
                    raise
                continue
            _log.info("stream was made", stream=name)
            return
        differing = sorted(key for key, value in wanted.items() if present.get(key) != value)
        if not differing:
            return
        try:
            await ask(client, f"STREAM.UPDATE.{name}", {**present, **wanted})
        except JetStreamError as error:
            if error.is_not_found and attempt < _TRIES:
                continue
            _log.warning(
                "stream cannot be changed and is used as it is", stream=name, fields=differing, cause=str(error)
            )
            return
        _log.info("stream was changed", stream=name, fields=differing)
        return


async def _present(client: Client, name: str) -> Mapping[str, Any] | None:
    try:
        return (await ask(client, f"STREAM.INFO.{name}"))["config"]
    except JetStreamError as error:
        if error.is_not_found:
            return None
        raise
