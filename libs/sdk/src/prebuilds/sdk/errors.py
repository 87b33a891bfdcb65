"""What a call answers when it answers no: the `google.rpc` details of a status as one typed error."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, cast

import grpc
import grpc.aio
from google.rpc import (  # pyright: ignore[reportMissingTypeStubs] - they lie beside a partial stub package
    error_details_pb2,
)
from grpc_status import rpc_status

from prebuilds.domain.refusals import MissingResource, Reason, Violation

_DOMAIN: Final = "prebuilds"
_REASONS: Final = {reason.value: reason for reason in Reason}
# It takes whatever has code, details and trailing metadata; its stub speaks of blocking calls only.
# Its stubs know calls only, and their types in part.
_status_of = cast("Callable[[grpc.aio.AioRpcError], Any]", cast("Any", rpc_status).from_call)


class PrebuildsError(Exception):
    """A call failed or was refused; everything that the server told a program about it is in the attributes."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason_name: str = "",
        violations: tuple[Violation, ...] = (),
        resource: MissingResource | None = None,
        retry_after: timedelta | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`reason_name` is empty where the answer is not one of this system's servers, as when none was reached."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason_name = reason_name
        """As sent; a newer server may know reasons that this client does not."""
        self.violations = violations
        """Every field that was wrong."""
        self.resource = resource
        """What does not exist for this caller."""
        self.retry_after = retry_after
        """How long to wait at least before it makes sense to try again; None = the server does not say."""
        self.metadata: Mapping[str, str] = metadata or {}

    @property
    def reason(self) -> Reason | None:
        """Why, where it is a reason that this client knows."""
        return _REASONS.get(self.reason_name)

    def __str__(self) -> str:
        """What a person needs: the message, and each wrong field on a line of its own."""
        lines = [self.message or self.code.name]
        # What is wrong with the whole request, and how many more wrong fields there are, has no field.
        lines += [
            f"  {wrong.field}: {wrong.description}" if wrong.field else f"  {wrong.description}"
            for wrong in self.violations
        ]
        return "\n".join(lines)


def error_of(failure: grpc.aio.AioRpcError) -> PrebuildsError:
    """Read the status of a failed call; details that are malformed or unknown are left out, never a fault."""
    reason_name = ""
    metadata: dict[str, str] = {}
    violations: tuple[Violation, ...] = ()
    resource: MissingResource | None = None
    retry_after: timedelta | None = None
    for holder in _details(failure):
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        missing = error_details_pb2.ResourceInfo()
        retry = error_details_pb2.RetryInfo()
        if holder.Unpack(info) and info.domain == _DOMAIN:
            reason_name, metadata = info.reason, dict(info.metadata)
        elif holder.Unpack(bad):
            violations = tuple(Violation(wrong.field, wrong.description) for wrong in bad.field_violations)
        elif holder.Unpack(missing):
            resource = MissingResource(missing.resource_type, missing.resource_name)
        elif holder.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    return PrebuildsError(
        failure.code(),
        failure.details() or "",
        reason_name=reason_name,
        violations=violations,
        resource=resource,
        retry_after=retry_after,
        metadata=metadata,
    )


@contextmanager
def typed_errors() -> Generator[None]:
    """Make failed calls within the block raise PrebuildsError."""
    try:
        yield
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure) from failure


def _details(failure: grpc.aio.AioRpcError) -> list[Any]:
    try:
        status = _status_of(failure)
        return [] if status is None else list(status.details)
    except Exception:  # noqa: BLE001 - whatever a server of another kind put there, the code itself is good
        return []
