"""Watching pools: a table on a terminal, a line for each change in a pipe, JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prebuilds.cli.connection import fail
from prebuilds.cli.explaining import describe_block, state_cell, state_word
from prebuilds.cli.finding import pool_name
from prebuilds.cli.moments import time_of, zone_of
from prebuilds.cli.output import Cell, Format, console, json_line, printable, table, width_of
from prebuilds.sdk.client import PrebuildsClient
from prebuilds.sdk.errors import PrebuildsError
from prebuilds.sdk.watching import watch_pools
from prebuilds.v1 import pool_pb2, pool_service_pb2

HEADERS: Final = ("pool", "version", "target", "eligible", "running", "starting", "deleting", "failed", "state")

_DISPENSABLE: Final = ("running", "deleting", "failed", "version", "starting")
"""Left out in this order where a terminal is too narrow; the state stays, which says what matters of them."""
_STUCK: Final = frozenset(
    {
        pool_pb2.BLOCK_KIND_HARD_LIMITED,
        pool_pb2.BLOCK_KIND_VALIDATION_FAILED,
        pool_pb2.BLOCK_KIND_OVER_QUOTA,
        pool_pb2.BLOCK_KIND_PAUSED,
    }
)
"""What ends by somebody's doing only."""


@dataclass(frozen=True, slots=True)
class Change:
    """A message of the stream, and what it comes to."""

    message: pool_service_pb2.WatchPoolsResponse
    gone: Mapping[str, pool_pb2.Pool]
    pools: Mapping[str, pool_pb2.Pool]
    """All that there are now."""


class Screen(Protocol):
    """Where a watch is shown."""

    def show(self, change: Change) -> None:
        """Show what has changed."""
        ...

    def tell(self, error: PrebuildsError | None) -> None:
        """Say what is wrong with the connection; None: nothing any more."""
        ...


async def follow(
    client: PrebuildsClient, organization: str, filter_: str, output: Format, *, until_full: bool = False
) -> None:
    """Show pools as they change, for ever, or until all active ones are full.

    Ends the program with 1 where a pool that shall become full cannot without somebody's doing.
    """
    pools: dict[str, pool_pb2.Pool] = {}
    with _screen(output) as screen:
        async with aclosing(watch_pools(client, organization, filter=filter_, tell=screen.tell)) as messages:
            async for message in messages:
                pools.update({pool.id: pool for pool in message.pools})
                gone = {id_: pools.pop(id_) for id_ in message.removed_ids if id_ in pools}
                screen.show(Change(message, gone, pools))
                if until_full and message.synced and are_full(pools.values()):
                    return


def row(pool: pool_pb2.Pool) -> tuple[Cell, ...]:
    """A pool below HEADERS."""
    return (pool_name(pool), pool.version_name, *map(str, _figures(pool)), state_cell(pool))


def in_order(pools: Mapping[str, pool_pb2.Pool]) -> list[pool_pb2.Pool]:
    """By name; the pool of the active version before those that drain."""
    return sorted(pools.values(), key=lambda pool: (pool.template_name, pool.name, not pool.active, pool.id))


def are_full(pools: Collection[pool_pb2.Pool]) -> bool:
    """Whether all active ones are full; ends the program with 1 where one cannot become so by itself.

    A block does no harm to a pool that is full, or that what is under way fills. Over quota is waited out while
    prebuilds go that may make room.
    """
    lacking = [pool for pool in pools if pool.active and pool.counts.eligible < pool.target.instances]
    makes_room = any(map(_is_emptied, pools))
    for pool in lacking:
        if pool.counts.actual - pool.counts.expired + pool.counts.starting >= pool.target.instances:
            continue
        for block in pool.blocked_by:
            if block.kind in _STUCK and not (block.kind == pool_pb2.BLOCK_KIND_OVER_QUOTA and makes_room):
                fail(f"{pool_name(pool)}: {describe_block(block, zone_of(''), time_of(pool.snapshot_time))}")
    return not lacking


def _is_emptied(pool: pool_pb2.Pool) -> bool:
    """Whether prebuilds of a pool are being deleted, or will be by the next pass."""
    counts = pool.counts
    if any(block.kind == pool_pb2.BLOCK_KIND_PAUSED for block in pool.blocked_by):
        return counts.deleting > 0
    unwanted = counts.expired + counts.extraneous if pool.active else counts.actual + counts.starting
    return counts.deleting + unwanted > 0


def _figures(pool: pool_pb2.Pool) -> tuple[int, ...]:
    counts = pool.counts
    return (pool.target.instances, counts.eligible, counts.actual, counts.starting, counts.deleting, counts.failed)


def _fitting(pools: Sequence[pool_pb2.Pool], width: int) -> Table:
    """The table of these pools, without what is dispensable where it would be wider than this."""
    rows = list(map(row, pools))
    shown = list(range(len(HEADERS)))
    dispensable = list(_DISPENSABLE)
    while True:
        made = table([HEADERS[index] for index in shown], [[cells[index] for index in shown] for cells in rows])
        if width_of(made) <= width or not dispensable:
            return made
        shown.remove(HEADERS.index(dispensable.pop(0)))


class _TableScreen:
    """A table, always as it is now."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pools: Mapping[str, pool_pb2.Pool] = {}
        self._trouble = ""

    def show(self, change: Change) -> None:
        self._pools = change.pools
        if change.message.synced:
            self._draw()

    def tell(self, error: PrebuildsError | None) -> None:
        self._trouble = _trouble(error)
        self._draw()

    def _draw(self) -> None:
        below = Text(self._trouble, style="red") if self._trouble else Text("Ctrl-C ends it", style="dim")
        self._live.update(Group(_fitting(in_order(self._pools), console.width), below), refresh=True)


class _Lines:
    """A line for each change."""

    def show(self, change: Change) -> None:
        for pool in in_order({pool.id: pool for pool in change.message.pools}):
            figures = (f"{name} {figure}" for name, figure in zip(HEADERS[2:-1], _figures(pool), strict=True))
            self._write(time_of(pool.snapshot_time), pool, *figures, state_word(pool))
        for pool in in_order(change.gone):
            self._write(datetime.now(UTC), pool, "gone")

    def tell(self, error: PrebuildsError | None) -> None:
        _tell_aside(error)

    def _write(self, at: datetime, pool: pool_pb2.Pool, *parts: str) -> None:
        line = "  ".join((f"{at:%H:%M:%SZ}", f"{pool_name(pool)} {pool.version_name}", *parts))
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class _JsonLines:
    """A line for each message."""

    def show(self, change: Change) -> None:
        json_line(change.message)

    def tell(self, error: PrebuildsError | None) -> None:
        _tell_aside(error)


def _tell_aside(error: PrebuildsError | None) -> None:
    sys.stderr.write(f"{_trouble(error) or 'the server is back'}\n")


def _trouble(error: PrebuildsError | None) -> str:
    return "" if error is None else printable(f"the server is away, trying again: {error.message or error.code.name}")


@contextmanager
def _screen(output: Format) -> Generator[Screen]:
    if output is Format.JSON:
        yield _JsonLines()
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield _TableScreen(live)
    else:
        yield _Lines()
