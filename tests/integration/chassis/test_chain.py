"""The chain around every RPC, over a real server and a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2  # pyright: ignore[reportMissingTypeStubs] - beside a partial stub package
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.sdk.trace import TracerProvider
from structlog.testing import capture_logs

from prebuilds.chassis import deadline
from prebuilds.chassis.channels import open_channel
from prebuilds.chassis.identity.credentials import ServiceCredentials
from prebuilds.chassis.policy import Action, Resource, people
from prebuilds.chassis.status import reason_of
from prebuilds.domain.principals import Role, ServiceName
from prebuilds.domain.refusals import CODES, Reason, Refusal, Violation
from tests.support.identity import Identity
from tests.support.tiny_service import NAME, OPEN, Stage, Tiny, TinyClient, open_stage, status_of

SECRET_TEXT = "password=hunter2 at row 17"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(Identity(tmp_path)) as stage:
        yield stage


async def all_of(call: Any) -> list[str]:
    return [answer.value async for answer in call]


CALLS: dict[str, Callable[[TinyClient], Any]] = {
    "unary": lambda client: client.unary("hello"),
    "stream": lambda client: all_of(client.watch("hello")),
    "stream by writing": lambda client: all_of(client.watch("hello", "WatchByWriting")),
    "collect": lambda client: client.collect("a", "b"),
    "chat": lambda client: all_of(client.chat("a", "b")),
}
each_kind = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


async def refused(awaitable: Any) -> tuple[grpc.StatusCode, str | None, grpc.aio.AioRpcError]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await awaitable
    status = status_of(failed.value)
    return failed.value.code(), None if status is None else reason_of(status), failed.value


async def test_all_kinds_of_calls_are_answered(stage: Stage) -> None:
    assert (await stage.client.unary("hello")).value == "HELLO"
    assert await all_of(stage.client.watch("abc")) == ["a", "b", "c"]
    assert await all_of(stage.client.watch("abc", "WatchByWriting")) == ["a", "b", "c"]
    assert (await stage.client.collect("a", "b")).value == "ab"
    assert await all_of(stage.client.chat("a", "b")) == ["A", "B"]


@each_kind
async def test_an_escaped_exception_is_internal_and_opaque(stage: Stage, call: Callable[[TinyClient], Any]) -> None:
    stage.tiny.fails = RuntimeError(SECRET_TEXT)
    with capture_logs() as lines:
        code, reason, error = await refused(call(stage.client))
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in repr(error)
    assert b"hunter2" not in repr(error.trailing_metadata()).encode()
    (logged,) = [line for line in lines if line["event"] == "call failed"]
    assert logged["incident"] in (error.details() or "")
    assert logged["exc_info"] is stage.tiny.fails


@pytest.mark.parametrize("reason", Reason)
async def test_every_refusal_arrives_with_its_code_and_reason(stage: Stage, reason: Reason) -> None:
    stage.tiny.fails = Refusal(reason, "no")
    code, arrived, error = await refused(stage.client.unary("x"))
    assert (code.name, arrived, error.details()) == (CODES[reason].value, reason.value, "no")


@each_kind
async def test_a_refusal_arrives_from_every_kind_of_call(stage: Stage, call: Callable[[TinyClient], Any]) -> None:
    stage.tiny.fails = Refusal.not_found("workspace", "w")
    code, reason, _ = await refused(call(stage.client))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


HUGE = {
    "300 wrong fields": Refusal.invalid(
        *(Violation(f"presets[{n}].parameters.size", "is no option") for n in range(300))
    ),
    "a long field": Refusal.invalid(Violation(f"parameters['{'x' * 5000}']", "is not known")),
    "a long name": Refusal.not_found("organization", "x" * 10_000),
    "a long name that is not ASCII": Refusal.not_found("organization", "\N{GRINNING FACE}" * 10_000),
    "a long message": Refusal(Reason.BUILD_FAILED, "%\n" * 10_000, metadata={"log": "x" * 10_000}),
}


@pytest.mark.parametrize("refusal", HUGE.values(), ids=HUGE)
async def test_a_refusal_of_any_size_arrives_at_a_client_with_default_limits(stage: Stage, refusal: Refusal) -> None:
    stage.tiny.fails = refusal
    code, reason, _ = await refused(stage.client.unary("x"))
    assert (code.name, reason) == (refusal.code.value, refusal.reason.value)


# Without `chat`: grpc.aio's client sometimes says INTERNAL itself when a call ends while it is still being written.
@pytest.mark.parametrize("call", [call for name, call in CALLS.items() if name != "chat"])
@pytest.mark.parametrize("token, reason", [(None, Reason.CREDENTIALS_MISSING), ("garbage", Reason.CREDENTIALS_INVALID)])
async def test_without_good_credentials_no_method_is_entered(
    stage: Stage, call: Callable[[TinyClient], Any], token: str | None, reason: Reason
) -> None:
    code, arrived, _ = await refused(call(TinyClient(stage.client.channel, token)))
    assert (code, arrived) == (grpc.StatusCode.UNAUTHENTICATED, reason.value)
    assert not stage.tiny.entered.is_set()


async def test_an_expired_token_is_unauthenticated(stage: Stage) -> None:
    expired = TinyClient(stage.client.channel, stage.identity.token(exp=1))
    code, reason, error = await refused(expired.unary("x"))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    assert error.details() == "token has expired"


async def test_who_may_not_call_a_method_is_denied(tmp_path: Path) -> None:
    access = dict(OPEN) | {f"/{NAME}/Unary": people((Resource.TEMPLATE, Action.UPDATE))}
    identity = Identity(tmp_path)
    identity.directory.add_person("alice", Role.MEMBER)
    identity.directory.add_person("ada", Role.TEMPLATE_ADMIN)
    async with open_stage(identity, access=access) as stage:
        code, reason, _ = await refused(stage.client.unary("x"))
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert not stage.tiny.entered.is_set()
        ada = TinyClient(stage.client.channel, identity.token("ada"))
        assert (await ada.unary("x")).value == "X"


async def test_a_method_knows_its_caller(stage: Stage) -> None:
    await stage.client.unary("x")
    assert stage.tiny.callers == [f"person:{stage.identity.directory.people['alice'].user_id}"]


async def test_calls_side_by_side_each_know_their_own_caller(stage: Stage) -> None:
    names = [f"user{number}" for number in range(20)]
    clients = [TinyClient(stage.client.channel, stage.identity.token(name)) for name in names]
    await asyncio.gather(*(client.unary("x") for client in clients))
    people = stage.identity.directory.people
    assert sorted(stage.tiny.callers) == sorted(f"person:{people[name].user_id}" for name in names)


async def test_the_callers_deadline_is_known_inside(stage: Stage) -> None:
    await stage.client.unary("x", timeout=30)
    assert stage.tiny.remaining is not None
    assert 0 < stage.tiny.remaining <= 30
    await stage.client.unary("x")
    assert stage.tiny.remaining is None


@pytest.mark.parametrize("method, kind", [("Unbuilt", "unary"), ("UnbuiltWatch", "watch")])
async def test_a_method_that_is_not_built_says_so(stage: Stage, method: str, kind: str) -> None:
    call = stage.client.unary("x", method) if kind == "unary" else all_of(stage.client.watch("x", method))
    with capture_logs() as lines:
        code, reason, error = await refused(call)
    assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_BUILT")
    assert method in (error.details() or "")
    assert [line for line in lines if line["log_level"] == "error"] == []


@each_kind
async def test_a_cancellation_that_a_method_lets_escape_still_gets_an_answer(
    stage: Stage, call: Callable[[TinyClient], Any]
) -> None:
    stage.tiny.fails = asyncio.CancelledError()
    code, reason, _ = await refused(call(stage.client))
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")


async def test_bytes_that_are_no_message_are_bad_input(stage: Stage) -> None:
    code, reason, _ = await refused(stage.client.raw(b"\xff\xff\xff"))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")


async def test_a_message_that_is_too_large_is_refused_by_its_size(tmp_path: Path) -> None:
    async with open_stage(Identity(tmp_path), settings={"max_message_size": 64 * 1024}) as stage:
        code, _, _ = await refused(stage.client.unary("x" * 70_000))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_app_can_explain_the_faults_of_its_dependencies(tmp_path: Path) -> None:
    def faults(error: BaseException) -> Refusal | None:
        return Refusal(Reason.DEPENDENCY_UNAVAILABLE, "away") if isinstance(error, ConnectionError) else None

    async with open_stage(Identity(tmp_path), faults=faults) as stage:
        stage.tiny.fails = ConnectionError(SECRET_TEXT)
        assert (await refused(stage.client.unary("x")))[:2] == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
        stage.tiny.fails = KeyError("x")
        assert (await refused(stage.client.unary("x")))[1] == "INTERNAL"


async def test_a_method_that_answers_nonsense_is_internal(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nonsense(self: Tiny, request: Any, context: Any) -> str:
        return SECRET_TEXT

    monkeypatch.setattr(Tiny, "Unary", nonsense)
    async with open_stage(stage.identity) as other:
        code, reason, error = await refused(other.client.unary("x"))
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in repr(error)


def durations(stage: Stage) -> dict[tuple[str, str], int]:
    data = stage.metrics.get_metrics_data()
    assert data is not None
    return {
        (str((point.attributes or {})["method"]), str((point.attributes or {})["code"])): point.count
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "prebuilds_rpc_duration_seconds"
        for point in metric.data.data_points
        if isinstance(point, HistogramDataPoint)
    }


@pytest.mark.parametrize("method", ["Unary", "Watch", "WatchByWriting"])
async def test_a_call_that_its_caller_cancels_is_cancelled_inside_and_counted_as_that(
    stage: Stage, method: str
) -> None:
    stage.tiny.gate = asyncio.Event()
    call = stage.client.unary("x") if method == "Unary" else stage.client.watch("", method)
    await stage.tiny.entered.wait()
    call.cancel()
    await stage.tiny.left.wait()
    await stage.server.calls.idle()
    assert durations(stage) == {(method, "CANCELLED"): 1}


async def test_every_call_is_measured_by_its_status(stage: Stage) -> None:
    await stage.client.unary("x")
    await stage.client.unary("x")
    stage.tiny.fails = Refusal.not_found("workspace", "w")
    await refused(stage.client.unary("x"))
    await refused(TinyClient(stage.client.channel, None).unary("x"))
    await stage.server.calls.idle()
    assert durations(stage) == {("Unary", "OK"): 2, ("Unary", "NOT_FOUND"): 1, ("Unary", "UNAUTHENTICATED"): 1}


async def test_a_span_continues_the_callers_trace(stage: Stage) -> None:
    metadata = [*stage.client.metadata, ("traceparent", f"00-{'ab' * 16}-{'cd' * 8}-01")]
    stage.client.metadata = metadata
    await stage.client.unary("x")
    stage.tiny.fails = RuntimeError("x")
    await refused(stage.client.unary("x"))
    await stage.server.calls.idle()
    good, bad = stage.spans.get_finished_spans()
    assert good.name == f"{NAME}/Unary"
    assert good.context is not None
    assert good.parent is not None
    assert trace.format_trace_id(good.context.trace_id) == "ab" * 16
    assert trace.format_span_id(good.parent.span_id) == "cd" * 8
    assert good.status.status_code is trace.StatusCode.UNSET
    assert bad.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in bad.events] == ["exception"]


async def test_a_service_calls_another_as_itself_in_its_own_trace_and_within_its_deadline(stage: Stage) -> None:
    credentials = ServiceCredentials(ServiceName.RECONCILER, stage.identity.service_key)
    tracer = TracerProvider().get_tracer("t")
    async with open_channel(stage.server.address, callee=ServiceName.CLAIMS, credentials=credentials) as channel:
        client = TinyClient(channel, None)

        async def call_within_a_deadline() -> None:
            deadline.end_in(20)
            assert (await client.unary("x")).value == "X"
            assert await all_of(client.watch("ab")) == ["a", "b"]

        with tracer.start_as_current_span("outer") as span:
            # A deadline is its task's, so that it ends with the call that it was set for.
            await asyncio.create_task(call_within_a_deadline())
    assert stage.tiny.callers == ["service:reconciler"] * 2
    assert stage.tiny.remaining is not None
    assert stage.tiny.remaining <= 20
    traces = {finished.context.trace_id for finished in stage.spans.get_finished_spans() if finished.context}
    assert traces == {span.get_span_context().trace_id}


async def test_a_failed_call_to_another_service_is_a_dependency_that_is_away(stage: Stage) -> None:
    stage.tiny.fails = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), SECRET_TEXT
    )
    code, reason, error = await refused(stage.client.unary("x"))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert "hunter2" not in repr(error)
    status = status_of(error)
    assert status is not None
    assert any(detail.Unpack(error_details_pb2.RetryInfo()) for detail in status.details)


async def test_every_failed_call_is_logged_in_one_line(stage: Stage) -> None:
    stage.tiny.fails = Refusal.not_found("workspace", "w")
    with capture_logs() as lines:
        await refused(stage.client.unary("x"))
        await refused(all_of(stage.client.watch("x")))
        await refused(TinyClient(stage.client.channel, None).unary("x"))
        stage.tiny.fails = Refusal(Reason.DEPENDENCY_UNAVAILABLE, "away")
        await refused(stage.client.unary("x"))
    assert [line["method"] for line in lines] == [
        f"/{NAME}/{method}" for method in ("Unary", "Watch", "Unary", "Unary")
    ]
    assert [line["code"] for line in lines] == ["NOT_FOUND", "NOT_FOUND", "UNAUTHENTICATED", "UNAVAILABLE"]
    assert [line["reason"] for line in lines] == [
        *("NOT_FOUND", "NOT_FOUND", "CREDENTIALS_MISSING", "DEPENDENCY_UNAVAILABLE")
    ]
    assert [line["log_level"] for line in lines] == ["info", "info", "info", "warning"]
    alice = f"person:{stage.identity.directory.people['alice'].user_id}"
    assert [line["caller"] for line in lines] == [alice, alice, None, alice]
    assert all(line["seconds"] >= 0 for line in lines)


async def test_no_token_is_ever_logged(stage: Stage) -> None:
    stage.tiny.fails = RuntimeError("x")
    with capture_logs() as lines:
        await refused(stage.client.unary("x"))
        await refused(TinyClient(stage.client.channel, "not-a-token-but-secret").unary("x"))
    text = repr(lines)
    assert "not-a-token-but-secret" not in text
    assert stage.client.metadata[0][1] not in text


async def test_an_unknown_method_is_unimplemented(stage: Stage) -> None:
    code, _, _ = await refused(stage.client.raw(b"", "NoSuch"))
    assert code is grpc.StatusCode.UNIMPLEMENTED
