"""Cancellation that cannot get lost."""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raise the cancellation of this task that something it awaited has swallowed.

    On Python 3.11 `asyncio.wait_for`, which psycopg and nats-py stand on, returns normally when what it waits for is
    done in the same turn of the loop as the cancellation; nats-py also swallows it by itself while it flushes. A loop
    that is cancelled once and would go on for ever calls this after whatever may have done so.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
