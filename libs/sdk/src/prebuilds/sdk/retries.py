"""Repeating a call that carries a request id: the server gives the first answer again, whatever was lost in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar
from uuid import uuid4

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from prebuilds.domain.refusals import Reason
from prebuilds.sdk.errors import PrebuildsError, typed_errors

T = TypeVar("T")

REPEAT_FOR: Final = timedelta(seconds=30)
"""How long a call is repeated unless the caller says otherwise."""

_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0
_PASSING_CODES: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_BROKEN_CODES: Final = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED})
_PASSING_REASONS: Final = frozenset({Reason.TRANSACTION_CONFLICT, Reason.LIMIT_EXCEEDED})


def make_request_id() -> str:
    """An id that no other request has."""
    return str(uuid4())


def is_passing(error: PrebuildsError) -> bool:
    """Whether the same call may succeed a moment later: servers away or busy, no refusal of what was asked."""
    return error.code in _PASSING_CODES or error.reason in _PASSING_REASONS


def is_cut(error: PrebuildsError) -> bool:
    """Whether a stream broke on its way, rather than that the server ended it for a reason of its own."""
    return is_passing(error) or (not error.reason_name and error.code in _BROKEN_CODES)


_spread = wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT)


def wait_before(state: RetryCallState) -> float:
    """Seconds until the next attempt: full jitter up to 5 s, and never less than the server asks for."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, PrebuildsError) else None
    return max(_spread(state), asked.total_seconds() if asked is not None else 0.0)


async def repeat(
    call: Callable[[], Awaitable[T]],
    *,
    limit: timedelta = REPEAT_FOR,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Call until it is answered with anything but a passing fault; every attempt must bear the same request id.

    No attempt begins when `limit` is over or would be; then the last error is raised. Raises PrebuildsError.
    """
    attempts = AsyncRetrying(
        sleep=sleep,
        retry=retry_if_exception(lambda error: isinstance(error, PrebuildsError) and is_passing(error)),
        wait=wait_before,
        stop=lambda state: (state.seconds_since_start or 0.0) + state.upcoming_sleep >= limit.total_seconds(),
        reraise=True,
    )

    async def attempt() -> T:
        with typed_errors():
            return await call()

    return await attempts(attempt)
