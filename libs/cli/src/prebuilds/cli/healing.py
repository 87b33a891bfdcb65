"""The stream of pools, without a seam where the server restarts.

Each stream of the server tells every pool once, says `synced`, then tells changes. One that was cut begins anew: of
what it tells again only the changes are passed on, and what went meanwhile is passed on as gone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final

import grpc
import grpc.aio

from prebuilds.sdk.client import PrebuildsClient
from prebuilds.sdk.errors import PrebuildsError, error_of
from prebuilds.sdk.retries import is_passing
from prebuilds.v1 import pool_pb2, pool_service_pb2

_GIVE_UP_AFTER: Final = 300.0  # seconds without the server
_LONGEST_PAUSE: Final = 2.0  # seconds
_BROKEN: Final = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED})


async def healed_stream(
    client: PrebuildsClient, organization: str, filter_: str, tell: Callable[[str], None]
) -> AsyncGenerator[pool_service_pb2.WatchPoolsResponse]:
    """Yield the messages of WatchPools for ever; `tell` hears when the server is away, and nothing when it is back.

    Raises PrebuildsError for a refusal, for a server that cannot be reached at first, or not for five minutes.
    """
    request = pool_service_pb2.WatchPoolsRequest(organization=organization, filter=filter_)
    seam = _Seam()
    failures, last_good, is_away = 0, time.monotonic(), False
    while True:
        call = client.pools.WatchPools(request)
        seam.begin()
        try:
            async for message in call:
                if is_away:
                    tell("")
                failures, last_good, is_away = 0, time.monotonic(), False
                passed_on = seam.take(message)
                if passed_on is not None:
                    yield passed_on
        except grpc.aio.AioRpcError as failure:
            error = error_of(failure)
            tried_for = time.monotonic() - last_good
            if not seam.was_complete or not _is_cut(error) or tried_for >= _GIVE_UP_AFTER:
                raise error from failure
            # The first time another replica may answer at once: nobody needs to know.
            if failures and not is_away:
                is_away = True
                tell(f"the server is away, trying again: {error.message or error.code.name}")
        finally:
            call.cancel()
        failures += 1
        await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.1 * 2**failures)))  # noqa: S311 - spreads callers


class _Seam:
    """What was passed on so far, and how the messages of a new stream join on to it."""

    def __init__(self) -> None:
        self.was_complete = False
        self._known: dict[str, pool_pb2.Pool] = {}
        self._told: set[str] = set()
        self._is_complete = False

    def begin(self) -> None:
        """A stream begins."""
        self._told, self._is_complete = set(), False

    def take(self, message: pool_service_pb2.WatchPoolsResponse) -> pool_service_pb2.WatchPoolsResponse | None:
        """What is new in a message; None where nothing is."""
        self._told.update(pool.id for pool in message.pools)
        removed = set(message.removed_ids)
        if message.synced and not self._is_complete:
            self._is_complete = True
            removed |= self._known.keys() - self._told
        changed = [pool for pool in message.pools if self._known.get(pool.id) != _timeless(pool)]
        self._known.update({pool.id: _timeless(pool) for pool in changed})
        for id_ in removed:
            self._known.pop(id_, None)
        completes = message.synced and not self.was_complete
        self.was_complete = self.was_complete or message.synced
        if not (changed or removed or completes):
            return None
        return pool_service_pb2.WatchPoolsResponse(pools=changed, removed_ids=sorted(removed), synced=self.was_complete)


def _is_cut(error: PrebuildsError) -> bool:
    return is_passing(error) or (not error.reason_name and error.code in _BROKEN)


def _timeless(pool: pool_pb2.Pool) -> pool_pb2.Pool:
    copy = pool_pb2.Pool()
    copy.CopyFrom(pool)
    copy.ClearField("snapshot_time")
    return copy
