"""From whatever a call ended with to the refusal that its caller gets, and one line in the log for each.

A drain's own refusals have one line for all of them, where the server says that it drained; who cancels a call gets no
answer and no line.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from opentelemetry import trace

from prebuilds.chassis.caller import current_caller
from prebuilds.domain.refusals import Code, Reason, Refusal

_FAULTS: Final = frozenset({Code.INTERNAL, Code.UNAVAILABLE})
_USUAL: Final = frozenset({Reason.DRAINING, Reason.STREAM_REPLACED})
_LONGEST_MESSAGE: Final = 300
_RETRY_AFTER: Final = timedelta(seconds=1)

_Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.stdlib.get_logger(__name__)


class Refusing:
    """Turns errors into refusals."""

    def __init__(self, faults: Callable[[BaseException], Refusal | None] | None) -> None:
        """`faults` knows the errors of the app's dependencies; None for those that it does not know."""
        self._faults = faults

    def refusal_of(self, path: str, error: BaseException, context: _Context, started: float) -> Refusal:
        """Turn any error of a call into a refusal, and log it; nothing of an unknown error is in it.

        `path` is the method's; `started` is when the call began, by `time.perf_counter`.
        """
        refusal = self._known(path, error, context)
        incident = None
        if refusal is None:
            incident = uuid.uuid4().hex
            trace.get_current_span().record_exception(error)
            refusal = Refusal(Reason.INTERNAL, f"internal error {incident}", metadata={"incident": incident})
        line = {
            "method": path,
            "code": refusal.code,
            "reason": refusal.reason,
            "message": refusal.message[:_LONGEST_MESSAGE],
            "caller": _caller_key(),
            "seconds": round(time.perf_counter() - started, 4),
        }
        if incident is not None:
            _log.error("call failed", **line, incident=incident, exc_info=error)
        elif refusal.code in _FAULTS and refusal.reason not in _USUAL:
            _log.warning("call failed", **line, exc_info=error)
        else:
            _log.info("call refused", **line)
        return refusal

    def _known(self, path: str, error: BaseException, context: _Context) -> Refusal | None:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, NotImplementedError) and context.code() == grpc.StatusCode.UNIMPLEMENTED:
            return Refusal(Reason.METHOD_NOT_BUILT, f"{path[1:]} is not built yet")
        if isinstance(error, grpc.aio.AioRpcError):
            return _refusal_of_peer(error)
        return self._faults(error) if self._faults is not None else None


def _refusal_of_peer(error: grpc.aio.AioRpcError) -> Refusal | None:
    """A failed call to another service: away or late is passed on as such, anything else is our own fault."""
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return Refusal(Reason.DEPENDENCY_UNAVAILABLE, "another service is not available", retry_after=_RETRY_AFTER)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Refusal(Reason.DEADLINE_EXCEEDED, "another service took too long")
        case _:
            return None


def _caller_key() -> str | None:
    """Who calls; None before that is known."""
    try:
        return current_caller().key
    except LookupError:
        return None
