"""The stream of pools, without a seam where the server restarts.

Each stream of the server tells every pool once, says `synced`, then tells changes. One that was cut begins anew: of
what it tells again only the changes are passed on, and what went meanwhile is passed on as gone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from typing import Final

import grpc.aio

from prebuilds.sdk.client import PrebuildsClient
from prebuilds.sdk.errors import PrebuildsError, error_of
from prebuilds.sdk.retries import is_cut
from prebuilds.v1 import pool_pb2, pool_service_pb2

_LONGEST_PAUSE: Final = 2.0  # seconds


async def watch_pools(
    client: PrebuildsClient,
    organization: str,
    *,
    filter: str = "",  # noqa: A002 - the request's field
    tell: Callable[[PrebuildsError | None], None] = lambda _: None,
    give_up_after: timedelta = timedelta(minutes=5),
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[pool_service_pb2.WatchPoolsResponse]:
    """Yield the messages of WatchPools for ever; a cut is healed.

    `tell` hears of the error when the server stays away, and None when it is back. Raises PrebuildsError: any refusal,
    or what cut it off, at the first attempt or once the server could not be reached for `give_up_after`.
    """
    request = pool_service_pb2.WatchPoolsRequest(organization=organization, filter=filter)
    seam = _Seam()
    failures, last_good, is_away = 0, time.monotonic(), False
    while True:
        call = client.pools.WatchPools(request)
        seam.begin()
        try:
            async for message in call:
                if is_away:
                    tell(None)
                failures, last_good, is_away = 0, time.monotonic(), False
                passed_on = seam.take(message)
                if passed_on is not None:
                    yield passed_on
        except grpc.aio.AioRpcError as failure:
            error = error_of(failure)
            tried_for = time.monotonic() - last_good
            if not seam.was_complete or not is_cut(error) or tried_for >= give_up_after.total_seconds():
                raise error from failure
            # The first time another replica may answer at once: nobody needs to know.
            if failures and not is_away:
                is_away = True
                tell(error)
        finally:
            call.cancel()
        failures += 1
        await sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.1 * 2**failures)))  # noqa: S311 - spreads callers


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


def _timeless(pool: pool_pb2.Pool) -> pool_pb2.Pool:
    copy = pool_pb2.Pool()
    copy.CopyFrom(pool)
    copy.ClearField("snapshot_time")
    return copy
