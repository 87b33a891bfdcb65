"""Workspaces, builds and claims as people see them: values, and how rows become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prebuilds.claims.rules.standing import STATUS, AgentStanding, WorkspaceStatus, is_ready
from prebuilds.domain.agents import AgentState
from prebuilds.domain.builds import BuildReason, FailureClass, JobStatus, Transition
from prebuilds.domain.claims import ClaimState
from prebuilds.domain.ids import (
    AgentId,
    BuildId,
    ClaimId,
    JobId,
    OrganizationId,
    PresetId,
    TemplateId,
    UserId,
    VersionId,
    WorkspaceId,
)


@dataclass(frozen=True, slots=True)
class BuildView:
    """A build with its job."""

    id: BuildId
    organization_id: OrganizationId
    workspace_id: WorkspaceId
    workspace_name: str
    number: int
    transition: Transition
    reason: BuildReason
    status: JobStatus
    version_id: VersionId
    version_name: str
    preset_id: PresetId | None
    preset_name: str | None
    parameters: dict[str, str]
    generation: int
    owner_id: UserId
    owner_name: str
    initiator_id: UserId
    initiator_name: str
    job_id: JobId | None
    failure_class: FailureClass | None
    error: str
    daily_cost: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim with the names that it is told by."""

    id: ClaimId
    organization_id: OrganizationId
    workspace_id: WorkspaceId
    workspace_name: str
    owner_id: UserId
    owner_name: str
    preset_id: PresetId
    preset_name: str
    template_id: TemplateId
    template_name: str
    build_id: BuildId
    generation: int
    state: ClaimState
    outcome: AgentState | None
    reason: str
    overdue: bool
    requested_at: datetime
    committed_at: datetime
    handed_over_at: datetime | None
    acknowledged_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent, retired ones aside."""

    id: AgentId
    name: str
    state: AgentState
    state_changed_at: datetime
    error: str
    incarnation: int
    generation: int
    connected: bool
    connected_at: datetime | None

    @property
    def standing(self) -> AgentStanding:
        """What decisions look at."""
        return AgentStanding(self.name, self.state, self.generation)


@dataclass(frozen=True, slots=True)
class PrebuildView:
    """What only a prebuild has."""

    eligible: bool
    ready_at: datetime | None
    expires_at: datetime | None
    delete_marked_at: datetime | None
    disconnected_at: datetime | None


@dataclass(frozen=True, slots=True)
class WorkspaceView:
    """A workspace with its latest build, its latest claim and its agents."""

    id: WorkspaceId
    organization_id: OrganizationId
    name: str
    owner_id: UserId
    owner_name: str
    template_id: TemplateId
    template_name: str
    status: WorkspaceStatus
    ttl: timedelta | None
    deadline: datetime | None
    autostart: str
    dormant_at: datetime | None
    deleting_at: datetime | None
    last_used_at: datetime | None
    claim_generation: int
    handover_generation: int
    created_at: datetime
    claimed_at: datetime | None
    deleted_at: datetime | None
    prebuild: PrebuildView | None
    agents: tuple[AgentView, ...]
    build: BuildView
    claim: ClaimView | None

    @property
    def ready(self) -> bool:
        """Whether it runs and every agent is ready in the owner's generation."""
        return is_ready(self.status, self.claim_generation, self.agent_standings)

    @property
    def agent_standings(self) -> tuple[AgentStanding, ...]:
        """What decisions look at in its agents."""
        return tuple(agent.standing for agent in self.agents)


def workspace_of(row: Mapping[str, Any]) -> WorkspaceView:
    """Make a workspace of a row of `workspaces.sql`."""
    return WorkspaceView(
        id=row["id"],
        organization_id=row["organization_id"],
        name=row["name"],
        owner_id=row["owner_id"],
        owner_name=row["owner_name"],
        template_id=row["template_id"],
        template_name=row["template_name"],
        status=STATUS[row["standing"]],
        ttl=row["ttl"],
        deadline=row["deadline"],
        autostart=row["autostart"],
        dormant_at=row["dormant_at"],
        deleting_at=row["deleting_at"],
        last_used_at=row["last_used_at"],
        claim_generation=row["claim_generation"],
        handover_generation=row["handover_generation"],
        created_at=row["created_at"],
        claimed_at=row["claimed_at"],
        deleted_at=row["deleted_at"],
        prebuild=_prebuild_of(row) if row["is_prebuild"] else None,
        agents=tuple(_agent_of(agent) for agent in row["agents"]),
        build=build_of(_prefixed(row, "b_")),
        claim=None if row["c_id"] is None else claim_of(_prefixed(row, "c_")),
    )


def build_of(row: Mapping[str, Any]) -> BuildView:
    """Make a build of a row of `builds.sql`."""
    failure_class = row["failure_class"]
    words: dict[str, Any] = {
        "transition": Transition(row["transition"]),
        "reason": BuildReason(row["reason"]),
        "status": JobStatus(row["status"]),
        "failure_class": None if failure_class is None else FailureClass(failure_class),
    }
    return BuildView(**{**row, **words})


def claim_of(row: Mapping[str, Any]) -> ClaimView:
    """Make a claim of a row of `claims.sql`."""
    outcome = row["outcome"]
    words: dict[str, Any] = {
        "state": ClaimState(row["state"]),
        "outcome": None if outcome is None else AgentState(outcome),
        "overdue": bool(row["overdue"]),
    }
    return ClaimView(**{**row, **words})


def _prefixed(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in row.items() if name.startswith(prefix)}


def _prebuild_of(row: Mapping[str, Any]) -> PrebuildView:
    return PrebuildView(
        row["eligible"], row["ready_at"], row["expires_at"], row["delete_marked_at"], row["disconnected_at"]
    )


def _agent_of(agent: Mapping[str, Any]) -> AgentView:
    connected_at = agent["connected_at"]
    return AgentView(
        id=agent["id"],
        name=agent["name"],
        state=AgentState(agent["state"]),
        state_changed_at=datetime.fromisoformat(agent["state_changed_at"]),
        error=agent["error"],
        incarnation=agent["incarnation"],
        generation=agent["generation"],
        connected=agent["connection_id"] is not None,
        connected_at=None if connected_at is None else datetime.fromisoformat(connected_at),
    )
