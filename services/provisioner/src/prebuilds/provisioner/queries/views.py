"""Jobs as people see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from prebuilds.domain.builds import BackendKind, BuildReason, FailureClass, JobStatus, Transition
from prebuilds.domain.ids import BuildId, JobId, OrganizationId, WorkspaceId


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with what people want to know of its build."""

    job_id: JobId
    organization_id: OrganizationId
    organization_name: str
    build_id: BuildId
    workspace_id: WorkspaceId
    workspace_name: str
    template_name: str
    preset_name: str | None
    transition: Transition
    reason: BuildReason
    number: int
    status: JobStatus
    priority: int
    backend: BackendKind
    tags: Mapping[str, str]
    attempt: int
    lease_owner: str
    lease_expires_at: datetime | None
    cancel_requested_at: datetime | None
    failure_class: FailureClass | None
    error: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
