from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from grpc_status import rpc_status

from prebuilds.chassis.status import to_status
from prebuilds.domain.refusals import MissingResource, Reason, Refusal, Violation
from prebuilds.sdk.errors import PrebuildsError, error_of, typed_errors


def failure_of(refusal: Refusal) -> grpc.aio.AioRpcError:
    status = cast("Any", rpc_status.to_status(to_status(refusal)))  # pyright: ignore[reportUnknownMemberType]
    metadata = grpc.aio.Metadata(*status.trailing_metadata)
    return grpc.aio.AioRpcError(status.code, trailing_metadata=metadata, details=status.details)


def test_an_error_has_everything_that_the_server_told() -> None:
    refusal = Refusal(
        Reason.NONE_READY,
        "no prebuild is ready",
        retry_after=timedelta(seconds=1.5),
        metadata={"preset": "small"},
    )
    error = error_of(failure_of(refusal))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.reason is Reason.NONE_READY
    assert error.message == str(error) == "no prebuild is ready"
    assert error.retry_after == timedelta(seconds=1.5)
    assert error.metadata == {"preset": "small"}


def test_every_wrong_field_is_shown() -> None:
    wrong = (Violation("name", "too long"), Violation("parameters.size", "not an option"))
    error = error_of(failure_of(Refusal.invalid(*wrong)))
    assert error.violations == wrong
    assert "name: too long" in str(error)
    assert "parameters.size: not an option" in str(error)


def test_what_is_wrong_with_no_field_is_shown_too() -> None:
    error = error_of(failure_of(Refusal.invalid(*(Violation(f"field{number}", "is wrong") for number in range(500)))))
    *_, last = str(error).splitlines()
    assert last == f"  and {500 - len(error.violations) + 1} more"


def test_what_is_missing_is_named() -> None:
    error = error_of(failure_of(Refusal.not_found("template", "python-dev")))
    assert error.resource == MissingResource("template", "python-dev")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_survives_the_wire(reason: Reason) -> None:
    assert error_of(failure_of(Refusal(reason, "no"))).reason is reason


def test_an_answer_of_something_else_than_our_servers_has_no_reason() -> None:
    bare = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, details="connection refused")
    error = error_of(bare)
    assert (error.code, error.reason, error.reason_name) == (grpc.StatusCode.UNAVAILABLE, None, "")


def test_details_that_cannot_be_read_leave_the_code() -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff no status"))
    broken = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, trailing_metadata=metadata, details="gone")
    assert error_of(broken).code is grpc.StatusCode.NOT_FOUND


def test_a_reason_that_a_newer_server_has_is_kept_by_name() -> None:
    error = PrebuildsError(grpc.StatusCode.ABORTED, "no", reason_name="INVENTED_LATER")
    assert error.reason is None
    assert error.reason_name == "INVENTED_LATER"


def test_within_typed_errors_a_failed_call_is_a_typed_error() -> None:
    with pytest.raises(PrebuildsError), typed_errors():
        raise failure_of(Refusal(Reason.NAME_TAKEN, "taken"))
