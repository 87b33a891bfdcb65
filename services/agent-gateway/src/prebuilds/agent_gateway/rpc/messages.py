"""Values <-> protobuf."""

from __future__ import annotations

import re
from typing import Final

from prebuilds.agent_gateway.manifests import Manifest
from prebuilds.agent_gateway.reporting import Report
from prebuilds.agent_gateway.rules.incarnations import Beginning
from prebuilds.agent_gateway.streams import Reinit
from prebuilds.chassis.fields import Fields
from prebuilds.domain.agents import AgentState
from prebuilds.domain.ids import SYSTEM_USER_ID
from prebuilds.v1 import agent_gateway_service_pb2, agent_pb2

MAX_ERROR_BYTES: Final = 4096

_PROCESS: Final = re.compile(r"[A-Za-z0-9-]{16,64}")
_MAX_COUNT: Final = 2**31 - 1

_REPORTED: Final = {
    agent_pb2.AGENT_STATE_STARTING: AgentState.STARTING,
    agent_pb2.AGENT_STATE_READY: AgentState.READY,
    agent_pb2.AGENT_STATE_START_ERROR: AgentState.START_ERROR,
    agent_pb2.AGENT_STATE_START_TIMEOUT: AgentState.START_TIMEOUT,
    agent_pb2.AGENT_STATE_SHUTTING_DOWN: AgentState.SHUTTING_DOWN,
    agent_pb2.AGENT_STATE_OFF: AgentState.OFF,
}
_STATES: Final = {state: number for number, state in _REPORTED.items()} | {
    AgentState.CREATED: agent_pb2.AGENT_STATE_CREATED
}
_WITH_ERROR: Final = frozenset({AgentState.START_ERROR, AgentState.START_TIMEOUT})


def beginning_of(request: agent_gateway_service_pb2.GetManifestRequest) -> Beginning:
    """Read a request to begin; raises Refusal with all that is wrong."""
    fields = Fields()
    if _PROCESS.fullmatch(request.process) is None:
        fields.wrong("process", "must be 16 to 64 letters, digits and hyphens")
    _check_count(fields, "entry", request.entry)
    fields.done()
    return Beginning(request.process, request.entry)


def report_of(request: agent_gateway_service_pb2.ReportStateRequest) -> Report:
    """Read a report; raises Refusal with all that is wrong."""
    fields = Fields()
    _check_count(fields, "incarnation", request.incarnation)
    state = _REPORTED.get(request.state)
    if state is None:
        fields.wrong("state", "must be STARTING, READY, START_ERROR, START_TIMEOUT, SHUTTING_DOWN or OFF")
    elif request.error and state not in _WITH_ERROR:
        fields.wrong("error", "must be empty but for START_ERROR and START_TIMEOUT")
    fields.done()
    assert state is not None  # noqa: S101 - or it was refused
    return Report(request.incarnation, state, _cut(request.error))


def stream_of(request: agent_gateway_service_pb2.StreamReinitRequest) -> tuple[int, int]:
    """Read the incarnation and the attempt of a stream; raises Refusal with all that is wrong."""
    fields = Fields()
    _check_count(fields, "incarnation", request.incarnation)
    _check_count(fields, "attempt", request.attempt)
    fields.done()
    return request.incarnation, request.attempt


def manifest_message(manifest: Manifest) -> agent_pb2.Manifest:
    """Write a manifest."""
    content = manifest.content
    startup: str = content.process.get("startup") or ""
    return agent_pb2.Manifest(
        incarnation=manifest.incarnation,
        generation=manifest.generation,
        organization_id=str(content.organization_id),
        workspace_id=str(content.workspace_id),
        workspace_name=content.workspace_name,
        owner_id=str(content.owner_id),
        owner_name=content.owner_name,
        is_prebuild=content.owner_id == SYSTEM_USER_ID,
        agent_id=str(manifest.agent_id),
        agent_name=manifest.agent_name,
        template_name=content.template_name,
        parameters=content.parameters,
        env=content.process.get("env") or {},
        startup_scripts=[agent_pb2.StartupScript(name="startup", path=startup)] if startup else [],
    )


def reinit_message(reinit: Reinit) -> agent_pb2.Reinit:
    """Write a reinit."""
    return agent_pb2.Reinit(
        workspace_id=str(reinit.workspace_id),
        claim_id=str(reinit.claim_id or ""),
        generation=reinit.generation,
        owner_id=str(reinit.owner_id or ""),
        owner_name=reinit.owner_name,
        reason=agent_pb2.REINIT_REASON_CLAIMED,
        traceparent=reinit.traceparent,
    )


def state_number(state: AgentState) -> agent_pb2.AgentState.ValueType:
    """Write a state."""
    return _STATES[state]


def _check_count(fields: Fields, field: str, value: int) -> None:
    if not 1 <= value <= _MAX_COUNT:
        fields.wrong(field, f"must be from 1 to {_MAX_COUNT}")


def _cut(error: str) -> str:
    """At most 4 KiB of it, whole characters, without the one character that Postgres cannot store."""
    return error.replace("\0", "�").encode()[:MAX_ERROR_BYTES].decode(errors="ignore")
