"""Every refusal becomes a status with details that a program can read."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import (  # pyright: ignore[reportMissingTypeStubs] - beside a partial stub package
    error_details_pb2,
    status_pb2,
)

from prebuilds.chassis.status import MAX_MESSAGE, MAX_STATUS, reason_of, to_status
from prebuilds.domain.refusals import Code, MissingResource, Reason, Refusal, Violation

AS_IT_IS = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""What gRPC does not encode in a message."""


def details(status: status_pb2.Status, kind: type[Message]) -> list[Message]:
    found: list[Message] = []
    for holder in status.details:
        detail = kind()
        if holder.Unpack(detail):
            found.append(detail)
    return found


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_code_and_error_info(reason: Reason) -> None:
    refusal = Refusal(reason, "no", metadata={"a": "b"})
    status = to_status(refusal)
    assert grpc.StatusCode[refusal.code.value].value[0] == status.code
    (info,) = details(status, error_details_pb2.ErrorInfo)
    assert info == error_details_pb2.ErrorInfo(reason=reason.value, domain="prebuilds", metadata={"a": "b"})
    assert reason_of(status) == reason.value


@pytest.mark.parametrize("code", Code)
def test_every_code_is_a_grpc_code(code: Code) -> None:
    assert grpc.StatusCode[code.value].name == code.value


def test_violations_become_a_bad_request() -> None:
    status = to_status(Refusal.invalid(Violation("name", "is empty"), Violation("ttl", "is negative")))
    (bad,) = details(status, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(wrong.field, wrong.description) for wrong in bad.field_violations] == [
        ("name", "is empty"),
        ("ttl", "is negative"),
    ]


def test_a_missing_resource_is_named() -> None:
    status = to_status(Refusal.not_found("template", "python"))
    (info,) = details(status, error_details_pb2.ResourceInfo)
    assert isinstance(info, error_details_pb2.ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("template", "python")


def test_who_may_come_again_is_told_when() -> None:
    status = to_status(Refusal(Reason.POOL_EMPTY, "empty", retry_after=timedelta(milliseconds=1500)))
    (info,) = details(status, error_details_pb2.RetryInfo)
    assert isinstance(info, error_details_pb2.RetryInfo)
    assert info.retry_delay.ToTimedelta() == timedelta(milliseconds=1500)


def test_over_quota_has_a_quota_failure() -> None:
    assert details(to_status(Refusal(Reason.OVER_QUOTA, "too much")), error_details_pb2.QuotaFailure)


@pytest.mark.parametrize(
    "reason", [reason for reason in Reason if Refusal(reason, "").code is Code.FAILED_PRECONDITION]
)
def test_a_failed_precondition_names_its_type(reason: Reason) -> None:
    (failure,) = details(to_status(Refusal(reason, "not now")), error_details_pb2.PreconditionFailure)
    assert isinstance(failure, error_details_pb2.PreconditionFailure)
    assert failure.violations[0].type == reason.value


def test_details_that_do_not_apply_are_left_out() -> None:
    status = to_status(Refusal(Reason.NAME_TAKEN, "taken", resource=MissingResource("workspace", "w")))
    assert not details(status, error_details_pb2.BadRequest)
    assert not details(status, error_details_pb2.RetryInfo)
    assert not details(status, error_details_pb2.PreconditionFailure)


def huge(letter: str) -> list[Refusal]:
    long = letter * 10_000
    fields = tuple(Violation(f"{long}[{number}]", long) for number in range(300))
    return [
        Refusal.not_found("organization", long),
        Refusal.invalid(*fields),
        Refusal.invalid(*(Violation(f"presets[{number}].name", "is taken") for number in range(300))),
        Refusal(
            Reason.BUILD_FAILED,
            long,
            violations=fields,
            resource=MissingResource(long, long),
            retry_after=timedelta(seconds=1),
            metadata={"subject": long, **{f"key{number}": long for number in range(100)}},
        ),
    ]


@pytest.mark.parametrize("letter", ["x", "%", "é", "\N{GRINNING FACE}"])
@pytest.mark.parametrize("which", range(4))
def test_a_status_is_never_larger_than_what_any_client_takes(letter: str, which: int) -> None:
    refusal = huge(letter)[which]
    status = to_status(refusal)
    assert reason_of(status) == refusal.reason.value
    assert len(quote(status.message, safe=AS_IT_IS)) <= MAX_MESSAGE
    assert status.ByteSize() <= MAX_STATUS


def test_wrong_fields_beyond_the_room_there_is_are_counted() -> None:
    status = to_status(huge("x")[2])
    (bad,) = details(status, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    *shown, last = bad.field_violations
    assert len(shown) > 50
    assert [wrong.field for wrong in shown] == [f"presets[{number}].name" for number in range(len(shown))]
    assert (last.field, last.description) == ("", f"and {300 - len(shown)} more")


def test_a_long_name_is_cut_in_its_middle() -> None:
    (info,) = details(to_status(Refusal.not_found("organization", "x" * 10_000)), error_details_pb2.ResourceInfo)
    assert isinstance(info, error_details_pb2.ResourceInfo)
    assert info.resource_name == "x" * 48 + "..." + "x" * 48
    assert info.description.startswith("organization 'xxx")
    assert info.description.endswith("xxx' not found")
