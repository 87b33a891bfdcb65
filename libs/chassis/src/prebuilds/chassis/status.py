"""Refusal -> `google.rpc.Status`: the code, the public text, and details that a program can read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import (  # pyright: ignore[reportMissingTypeStubs] - they lie beside a partial stub package
    error_details_pb2,
    status_pb2,
)

from prebuilds.domain.refusals import Code, Reason, Refusal

ERROR_DOMAIN: Final = "prebuilds"

GRPC_CODES: Final = {code: grpc.StatusCode[code.value] for code in Code}


def to_status(refusal: Refusal) -> status_pb2.Status:
    """The status that a caller gets for a refusal."""
    packed: list[any_pb2.Any] = []
    for detail in _details(refusal):
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    number: int = GRPC_CODES[refusal.code].value[0]
    return status_pb2.Status(code=number, message=refusal.message, details=packed)


def reason_of(status: status_pb2.Status) -> str | None:
    """The reason in a status's ErrorInfo; None where there is none of ours."""
    for holder in status.details:
        info = error_details_pb2.ErrorInfo()
        if holder.Unpack(info) and info.domain == ERROR_DOMAIN:
            return info.reason
    return None


def _details(refusal: Refusal) -> Iterator[Message]:
    reason = refusal.reason.value
    yield error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=dict(refusal.metadata))
    if refusal.violations:
        yield error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=wrong.field, description=wrong.description)
                for wrong in refusal.violations
            ]
        )
    if refusal.resource is not None:
        missing = refusal.resource
        yield error_details_pb2.ResourceInfo(
            resource_type=missing.kind, resource_name=missing.name, description=refusal.message
        )
    if refusal.reason is Reason.OVER_QUOTA:
        subject = refusal.metadata.get("subject", "")
        yield error_details_pb2.QuotaFailure(
            violations=[error_details_pb2.QuotaFailure.Violation(subject=subject, description=refusal.message)]
        )
    if refusal.code is Code.FAILED_PRECONDITION:
        subject = refusal.metadata.get("subject", "")
        yield error_details_pb2.PreconditionFailure(
            violations=[
                error_details_pb2.PreconditionFailure.Violation(
                    type=reason, subject=subject, description=refusal.message
                )
            ]
        )
    if refusal.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(refusal.retry_after)
        yield error_details_pb2.RetryInfo(retry_delay=delay)
