"""Refusal -> `google.rpc.Status`: the code, the public text, and details that a program can read.

A status travels in HTTP/2 trailers, of which clients take 8 KiB by default (gRPC's core and Java; what is larger they
turn into RESOURCE_EXHAUSTED without any details). So it is bounded here, for any client: the message to 1 KiB as gRPC
writes it (percent-encoded), the serialised status to 4.5 KiB (6 KiB in base64, which not all implementations spare),
and the last KiB is left to the other headers and to proxies. ErrorInfo always arrives; of the wrong fields as many as
there is room for, and how many more there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import (  # pyright: ignore[reportMissingTypeStubs] - they lie beside a partial stub package
    error_details_pb2,
    status_pb2,
)

from prebuilds.domain.refusals import Code, Reason, Refusal, Violation

ERROR_DOMAIN: Final = "prebuilds"

GRPC_CODES: Final = {code: grpc.StatusCode[code.value] for code in Code}

MAX_MESSAGE: Final = 1024
"""Bytes of a message, percent-encoded."""
MAX_STATUS: Final = 4608
"""Bytes of a status, serialised."""
MAX_ECHO: Final = 100
"""Characters of a name, path or other value that is repeated to the caller."""

_MAX_DESCRIPTION: Final = 300
_MAX_METADATA: Final = 1024
_MAX_MORE: Final = 64
# What a message takes around itself: its field's number and its length.
_FRAME: Final = 4
_CUT: Final = "..."


def to_status(refusal: Refusal) -> status_pb2.Status:
    """The status that a caller gets for a refusal, small enough for any client."""
    number: int = GRPC_CODES[refusal.code].value[0]
    message = _cut(refusal.message, MAX_MESSAGE, encoded=True)
    status = status_pb2.Status(code=number, message=message)
    for detail in _details(refusal, message):
        _add(status, detail)
    if refusal.violations:
        frame = _packed(error_details_pb2.BadRequest()).ByteSize() + 2 * _FRAME
        _add(status, _bad_request(refusal.violations, MAX_STATUS - status.ByteSize() - frame))
    return status


def reason_of(status: status_pb2.Status) -> str | None:
    """The reason in a status's ErrorInfo; None where there is none of ours."""
    for holder in status.details:
        info = error_details_pb2.ErrorInfo()
        if holder.Unpack(info) and info.domain == ERROR_DOMAIN:
            return info.reason
    return None


def _details(refusal: Refusal, message: str) -> Iterator[Message]:
    """All details but the wrong fields, what programs need most first."""
    reason = refusal.reason.value
    yield error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=_metadata(refusal))
    if refusal.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(refusal.retry_after)
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if refusal.resource is not None:
        missing = refusal.resource
        yield error_details_pb2.ResourceInfo(
            resource_type=missing.kind, resource_name=_cut(missing.name, MAX_ECHO), description=message
        )
    subject = _cut(refusal.metadata.get("subject", ""), MAX_ECHO)
    if refusal.reason is Reason.OVER_QUOTA:
        yield error_details_pb2.QuotaFailure(
            violations=[error_details_pb2.QuotaFailure.Violation(subject=subject, description=message)]
        )
    if refusal.code is Code.FAILED_PRECONDITION:
        yield error_details_pb2.PreconditionFailure(
            violations=[
                error_details_pb2.PreconditionFailure.Violation(type=reason, subject=subject, description=message)
            ]
        )


def _metadata(refusal: Refusal) -> dict[str, str]:
    """As much of the metadata as there is room for."""
    shown: dict[str, str] = {}
    room = _MAX_METADATA
    for key, value in refusal.metadata.items():
        cut = _cut(value, MAX_ECHO)
        room -= len(key.encode()) + len(cut.encode()) + 3 * _FRAME
        if room >= 0:
            shown[key] = cut
    return shown


def _bad_request(violations: Sequence[Violation], room: int) -> error_details_pb2.BadRequest:
    """As many of the wrong fields as there is room for, and how many more there are."""
    bad = error_details_pb2.BadRequest()
    room -= _MAX_MORE
    for count, wrong in enumerate(violations):
        shown = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(wrong.field, MAX_ECHO), description=_cut(wrong.description, _MAX_DESCRIPTION)
        )
        room -= shown.ByteSize() + _FRAME
        if room < 0:
            bad.field_violations.add(description=f"and {len(violations) - count} more")
            break
        bad.field_violations.append(shown)
    return bad


def _add(status: status_pb2.Status, detail: Message) -> None:
    """Add a detail if there is room for it."""
    packed = _packed(detail)
    if status.ByteSize() + packed.ByteSize() + _FRAME <= MAX_STATUS:
        status.details.append(packed)


def _packed(detail: Message) -> any_pb2.Any:
    holder = any_pb2.Any()
    holder.Pack(detail)
    return holder


def _cut(text: str, most: int, *, encoded: bool = False) -> str:
    """The text, its middle left out where it is longer than so many characters, or bytes once percent-encoded."""
    if (_encoded_size(text) if encoded else len(text)) <= most:
        return text
    keep = (most - len(_CUT)) // 2
    if not encoded:
        return text[:keep] + _CUT + text[-keep:]
    return _fitting(text[:keep], keep) + _CUT + _fitting(text[: -keep - 1 : -1], keep)[::-1]


def _fitting(text: str, most: int) -> str:
    """The longest beginning of a text that is not larger than this, percent-encoded."""
    for count, letter in enumerate(text):
        most -= _encoded_size(letter)
        if most < 0:
            return text[:count]
    return text


def _encoded_size(text: str) -> int:
    """Bytes that a text takes in the header `grpc-message`: one or, for what is not printable ASCII, three each."""
    return sum(1 if " " <= letter <= "~" and letter != "%" else 3 * len(letter.encode()) for letter in text)
