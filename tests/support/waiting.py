"""Waiting for something to become true, without sleeping for a guessed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Final, TypeVar, overload

import psycopg

T = TypeVar("T")

INTERVAL: Final = 0.01  # seconds


@overload
async def eventually(condition: Callable[[], Awaitable[T]], timeout: float = 10, *, what: str = "") -> T: ...


@overload
async def eventually(condition: Callable[[], T], timeout: float = 10, *, what: str = "") -> T: ...


async def eventually(condition: Callable[[], object], timeout: float = 10, *, what: str = "") -> object:
    """Wait until the condition, async or not, gives something true, and give that; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}; last seen: {value!r}")
        await asyncio.sleep(INTERVAL)


async def until_blocked(connection: psycopg.AsyncConnection, pid: int, timeout: float = 10) -> None:
    """Wait until Postgres itself says that this backend waits for another's lock.

    Ask on a connection of its own, in autocommit.
    """

    async def is_blocked() -> bool:
        cursor = await connection.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [pid])
        row = await cursor.fetchone()
        return row is not None and bool(row[0])

    await eventually(is_blocked, timeout, what=f"backend {pid} is blocked")


async def until_waiting(connection: psycopg.AsyncConnection, waiters: int = 1, timeout: float = 10) -> list[int]:
    """Wait until that many backends of this database wait for locks, and give them.

    Ask on a connection of its own, in autocommit.
    """

    async def find() -> list[int]:
        cursor = await connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        found = [pid for (pid,) in await cursor.fetchall()]
        return found if len(found) >= waiters else []

    return await eventually(find, timeout, what=f"{waiters} wait for locks")
