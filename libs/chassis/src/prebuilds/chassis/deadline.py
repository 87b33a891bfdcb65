"""How much time the caller still gives: set once per RPC by the interceptor, passed on to SQL and to other services."""

from __future__ import annotations

import time
from contextvars import ContextVar
from datetime import timedelta

_ends_at: ContextVar[float | None] = ContextVar("prebuilds_deadline", default=None)


def remaining() -> timedelta | None:
    """What is left until the caller stops waiting, never below zero; None where nobody set a deadline."""
    ends_at = _ends_at.get()
    return None if ends_at is None else timedelta(seconds=max(0.0, ends_at - time.monotonic()))


def end_in(seconds: float | None) -> None:
    """Set the deadline of this task and of all that it starts from now on."""
    _ends_at.set(None if seconds is None else time.monotonic() + seconds)
