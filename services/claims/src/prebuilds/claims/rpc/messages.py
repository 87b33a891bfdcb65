"""Values to protobuf."""

from __future__ import annotations

from typing import Final

from prebuilds.chassis.messages import duration, timestamp
from prebuilds.claims.attempts import Creation
from prebuilds.claims.creating import Forecast
from prebuilds.claims.queries.views import AgentView, BuildView, ClaimView, PrebuildView, WorkspaceView
from prebuilds.claims.rules.standing import WorkspaceStatus
from prebuilds.domain.agents import AgentState
from prebuilds.domain.builds import BuildReason, FailureClass, JobStatus, Transition
from prebuilds.domain.claims import ClaimState, MissReason
from prebuilds.v1 import agent_pb2, claim_pb2, reason_pb2, workspace_pb2, workspace_service_pb2

_TRANSITIONS: Final = {word: workspace_pb2.Transition.Value(f"TRANSITION_{word.name}") for word in Transition}
_REASONS: Final = {word: workspace_pb2.BuildReason.Value(f"BUILD_REASON_{word.name}") for word in BuildReason}
_BUILD_STATUSES: Final = {word: workspace_pb2.BuildStatus.Value(f"BUILD_STATUS_{word.name}") for word in JobStatus}
_FAILURES: Final = {
    None: workspace_pb2.FAILURE_CLASS_UNSPECIFIED,
    **{word: workspace_pb2.FailureClass.Value(f"FAILURE_CLASS_{word.name}") for word in FailureClass},
}
_STATUSES: Final = {
    word: workspace_pb2.WorkspaceStatus.Value(f"WORKSPACE_STATUS_{word.name}") for word in WorkspaceStatus
}
_AGENT_STATES: Final = {word: agent_pb2.AgentState.Value(f"AGENT_STATE_{word.name}") for word in AgentState}
_CLAIM_STATES: Final = {word: claim_pb2.ClaimState.Value(f"CLAIM_STATE_{word.name}") for word in ClaimState}
_MISSES: Final = {word: reason_pb2.Reason.Value(f"REASON_{word.name}") for word in MissReason}
_OUTCOMES: Final = {
    AgentState.READY: claim_pb2.CLAIM_OUTCOME_READY,
    AgentState.START_TIMEOUT: claim_pb2.CLAIM_OUTCOME_START_TIMEOUT,
    AgentState.START_ERROR: claim_pb2.CLAIM_OUTCOME_START_ERROR,
}


def workspace_message(view: WorkspaceView) -> workspace_pb2.Workspace:
    """Tell a workspace."""
    return workspace_pb2.Workspace(
        id=str(view.id),
        organization_id=str(view.organization_id),
        name=view.name,
        owner_id=str(view.owner_id),
        owner_name=view.owner_name,
        template_id=str(view.template_id),
        template_name=view.template_name,
        status=_STATUSES[view.status],
        ready=view.ready,
        latest_build=build_message(view.build),
        agents=[_agent_message(agent) for agent in view.agents],
        deadline=timestamp(view.deadline),
        autostart_schedule=view.autostart,
        dormant=view.dormant_at is not None,
        dormant_time=timestamp(view.dormant_at),
        autodelete_time=timestamp(view.deleting_at),
        last_used_time=timestamp(view.last_used_at),
        claim_generation=view.claim_generation,
        handover_generation=view.handover_generation,
        create_time=timestamp(view.created_at),
        claim_time=timestamp(view.claimed_at),
        delete_time=timestamp(view.deleted_at),
        ttl=duration(view.ttl),
        prebuild=_prebuild_message(view.prebuild),
    )


def build_message(view: BuildView) -> workspace_pb2.Build:
    """Tell a build."""
    return workspace_pb2.Build(
        id=str(view.id),
        organization_id=str(view.organization_id),
        workspace_id=str(view.workspace_id),
        workspace_name=view.workspace_name,
        number=view.number,
        transition=_TRANSITIONS[view.transition],
        reason=_REASONS[view.reason],
        status=_BUILD_STATUSES[view.status],
        version_id=str(view.version_id),
        version_name=view.version_name,
        preset_id=str(view.preset_id or ""),
        preset_name=view.preset_name or "",
        parameters=view.parameters,
        generation=view.generation,
        owner_id=str(view.owner_id),
        owner_name=view.owner_name,
        initiator_id=str(view.initiator_id),
        initiator_name=view.initiator_name,
        job_id=str(view.job_id or ""),
        failure_class=_FAILURES[view.failure_class],
        error=view.error,
        daily_cost=view.daily_cost,
        create_time=timestamp(view.created_at),
        start_time=timestamp(view.started_at),
        end_time=timestamp(view.finished_at),
    )


def claim_message(view: ClaimView) -> claim_pb2.Claim:
    """Tell a claim."""
    return claim_pb2.Claim(
        id=str(view.id),
        organization_id=str(view.organization_id),
        workspace_id=str(view.workspace_id),
        workspace_name=view.workspace_name,
        owner_id=str(view.owner_id),
        owner_name=view.owner_name,
        preset_id=str(view.preset_id),
        preset_name=view.preset_name,
        template_id=str(view.template_id),
        template_name=view.template_name,
        build_id=str(view.build_id),
        generation=view.generation,
        state=_CLAIM_STATES[view.state],
        outcome=claim_pb2.CLAIM_OUTCOME_UNSPECIFIED if view.outcome is None else _OUTCOMES[view.outcome],
        reason=view.reason,
        overdue=view.overdue,
        request_time=timestamp(view.requested_at),
        commit_time=timestamp(view.committed_at),
        handover_time=timestamp(view.handed_over_at),
        acknowledge_time=timestamp(view.acknowledged_at),
        end_time=timestamp(view.ended_at),
    )


def creation_message(creation: Creation) -> workspace_service_pb2.CreateWorkspaceResponse:
    """Tell what was created: a hit with its claim, or a miss with its reason."""
    claim = creation.workspace.claim
    answer = workspace_service_pb2.CreateWorkspaceResponse(
        workspace=workspace_message(creation.workspace), build=build_message(creation.build)
    )
    if creation.miss is not None:
        answer.outcome = claim_pb2.CREATION_OUTCOME_MISS
        answer.miss_reason = _MISSES[creation.miss]
    else:
        answer.outcome = claim_pb2.CREATION_OUTCOME_HIT
        if claim is not None:
            answer.claim.CopyFrom(claim_message(claim))
    return answer


def forecast_message(forecast: Forecast) -> workspace_service_pb2.CreateWorkspaceResponse:
    """Tell what would be created; what does not exist has no id."""
    plan, miss = forecast.plan, forecast.miss
    organization_id, owner_id = str(plan.organization_id), str(plan.owner.user_id)
    workspace = workspace_pb2.Workspace(
        organization_id=organization_id,
        owner_id=owner_id,
        owner_name=plan.owner.name,
        name=forecast.name,
        template_id=str(plan.template.template_id),
        template_name=plan.template.name,
        autostart_schedule=plan.autostart,
        ttl=duration(plan.ttl),
    )
    build = workspace_pb2.Build(
        organization_id=organization_id,
        owner_id=owner_id,
        owner_name=plan.owner.name,
        workspace_name=forecast.name,
        transition=workspace_pb2.TRANSITION_START,
        reason=workspace_pb2.BUILD_REASON_CLAIM if miss is None else workspace_pb2.BUILD_REASON_USER,
        version_id=str(plan.version_id),
        preset_id=str(plan.preset.preset_id) if plan.preset else "",
        preset_name=plan.preset.name if plan.preset else "",
        parameters=plan.values,
    )
    return workspace_service_pb2.CreateWorkspaceResponse(
        workspace=workspace,
        build=build,
        outcome=claim_pb2.CREATION_OUTCOME_HIT if miss is None else claim_pb2.CREATION_OUTCOME_MISS,
        miss_reason=reason_pb2.REASON_UNSPECIFIED if miss is None else _MISSES[miss],
    )


def _agent_message(view: AgentView) -> agent_pb2.Agent:
    return agent_pb2.Agent(
        id=str(view.id),
        name=view.name,
        state=_AGENT_STATES[view.state],
        state_time=timestamp(view.state_changed_at),
        error=view.error,
        incarnation=view.incarnation,
        generation=view.generation,
        connected=view.connected,
        connect_time=timestamp(view.connected_at),
    )


def _prebuild_message(view: PrebuildView | None) -> workspace_pb2.PrebuildInfo | None:
    if view is None:
        return None
    return workspace_pb2.PrebuildInfo(
        eligible=view.eligible,
        ready_time=timestamp(view.ready_at),
        expire_time=timestamp(view.expires_at),
        delete_mark_time=timestamp(view.delete_marked_at),
        disconnect_time=timestamp(view.disconnected_at),
    )
