"""What lists are asked for; every list of several is of one organisation."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prebuilds.claims.queries.naming import NOBODY, Named
from prebuilds.domain.builds import BuildReason, JobStatus, Transition
from prebuilds.domain.claims import ClaimState
from prebuilds.domain.ids import BuildId, ClaimId, OrganizationId, UserId, WorkspaceId


@dataclass(frozen=True, slots=True)
class WorkspaceFilter:
    """Which workspaces of an organisation; what is None does not matter."""

    organization_id: OrganizationId | None = None
    """None: of none, until access has been decided."""
    only_owner_id: UserId | None = None
    """The owner whose workspaces alone the caller may see."""
    show_deleted: bool = False
    name: str | None = None
    owner: Named = NOBODY
    template: Named = NOBODY
    preset_id: UUID | None = None
    standings: tuple[str, ...] | None = None
    dormant: bool | None = None
    is_prebuild: bool | None = False


@dataclass(frozen=True, slots=True)
class BuildFilter:
    """Which builds of a workspace; what is None does not matter."""

    workspace_id: WorkspaceId
    build_id: BuildId | None = None
    transition: Transition | None = None
    status: JobStatus | None = None
    reason: BuildReason | None = None


@dataclass(frozen=True, slots=True)
class ClaimFilter:
    """Which claims; what is None does not matter. Either of an organisation, or the one of an id."""

    organization_id: OrganizationId | None = None
    claim_id: ClaimId | None = None
    only_owner_id: UserId | None = None
    """The person whose claims alone the caller may see."""
    owner: Named = NOBODY
    state: ClaimState | None = None
    unacknowledged: bool = False
    workspace_id: UUID | None = None
    template: Named = NOBODY
    preset_id: UUID | None = None
