from __future__ import annotations

from typing import Any

import pytest

from prebuilds.agent_gateway.rpc import messages
from prebuilds.agent_gateway.rules.incarnations import Beginning
from prebuilds.domain.agents import AgentState
from prebuilds.domain.refusals import Refusal
from prebuilds.v1 import agent_pb2
from prebuilds.v1.agent_gateway_service_pb2 import GetManifestRequest, ReportStateRequest, StreamReinitRequest


def fields(refusal: Refusal) -> set[str]:
    return {violation.field for violation in refusal.violations}


@pytest.mark.parametrize("process", ["", "too-short", "x" * 65, "a/b/c/d/e/f/g/h/i", "1234567890abcdef\n"])
def test_a_process_has_a_form(process: str) -> None:
    with pytest.raises(Refusal) as refused:
        messages.beginning_of(GetManifestRequest(process=process, entry=0))

    assert fields(refused.value) == {"process", "entry"}


def test_a_beginning_is_read() -> None:
    assert messages.beginning_of(GetManifestRequest(process="0123456789abcdef", entry=2)) == Beginning(
        "0123456789abcdef", 2
    )


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**63 - 1])
def test_numbers_that_no_column_holds_are_refused(number: int) -> None:
    with pytest.raises(Refusal) as refused:
        messages.stream_of(StreamReinitRequest(incarnation=number, attempt=number))

    assert fields(refused.value) == {"incarnation", "attempt"}


@pytest.mark.parametrize(
    "request_fields,wrong",
    [
        ({"incarnation": 0, "state": agent_pb2.AGENT_STATE_UNSPECIFIED}, {"incarnation", "state"}),
        ({"incarnation": 1, "state": agent_pb2.AGENT_STATE_CREATED}, {"state"}),
        ({"incarnation": 1, "state": 99}, {"state"}),
        ({"incarnation": 1, "state": agent_pb2.AGENT_STATE_READY, "error": "but"}, {"error"}),
    ],
)
def test_a_wrong_report_is_refused_with_all_that_is_wrong(request_fields: dict[str, Any], wrong: set[str]) -> None:
    with pytest.raises(Refusal) as refused:
        messages.report_of(ReportStateRequest(**request_fields))

    assert fields(refused.value) == wrong


def test_a_long_error_is_cut_between_characters_and_holds_nothing_that_postgres_cannot() -> None:
    report = messages.report_of(
        ReportStateRequest(incarnation=1, state=agent_pb2.AGENT_STATE_START_ERROR, error="\0" + "é" * 4096)
    )

    assert report.state is AgentState.START_ERROR
    assert len(report.error.encode()) <= messages.MAX_ERROR_BYTES
    assert "\0" not in report.error
    assert report.error.endswith("é")


def test_every_state_has_a_number() -> None:
    assert {messages.state_number(state) for state in AgentState} == set(range(1, 8))
