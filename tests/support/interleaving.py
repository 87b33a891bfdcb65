"""Interleavings that are forced: a transaction of the product is held between two of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import psycopg
import pytest

from prebuilds.store.transactions import Transaction
from tests.support.waiting import eventually

_STEPS: Final = ("run", "fetch_all", "fetch_one", "execute", "commit")


class Stop:
    """Holds the first transaction of a name before one of its steps, its statements and its commit, counted from 0."""

    def __init__(
        self, patch: pytest.MonkeyPatch, name: str, step: int, meanwhile: Callable[[], Awaitable[None]]
    ) -> None:
        """`meanwhile` is awaited there; the transaction goes on when it returns."""
        self.was_met = False
        """Whether the transaction has come that far."""
        self.steps_done = 0
        self._name = name
        self._step = step
        self._meanwhile = meanwhile
        self._held: Transaction | None = None
        for method in _STEPS:
            patch.setattr(Transaction, method, self._watched(getattr(Transaction, method)))

    def _watched(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def step(tx: Transaction, *args: object, **named: object) -> object:
            if tx.name == self._name and not self.was_met and self._held in {None, tx}:
                self._held = tx
                if self.steps_done == self._step:
                    self.was_met = True
                    await self._meanwhile()
                self.steps_done += 1
            return await method(tx, *args, **named)

        return step


async def until_done_or_blocked(task: asyncio.Task[Any], observer: psycopg.AsyncConnection) -> None:
    """Wait until a task has ended, or Postgres says that some backend of this database waits for a lock.

    Ask on a connection of its own, in autocommit.
    """
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def is_blocked() -> bool:
        return task.done() or (await observer.execute(query)).rowcount > 0

    await eventually(is_blocked, what="the other has ended, or waits for a lock")
