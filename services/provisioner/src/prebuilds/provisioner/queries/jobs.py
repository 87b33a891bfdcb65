"""Jobs as people see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prebuilds.domain.builds import BackendKind, BuildReason, FailureClass, JobStatus, Transition
from prebuilds.domain.ids import BuildId, JobId, OrganizationId, WorkspaceId
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.provisioner.queries")


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


async def read_job(tx: Transaction, job_id: JobId) -> JobView:
    """Read a job that exists."""
    view = await tx.fetch_one(_queries["job"], {"job_id": job_id}, row=JobView)
    assert view is not None, "a job without a build"  # noqa: S101 - foreign keys hold it
    return view


async def read_agent_names(tx: Transaction, workspace_id: WorkspaceId) -> Sequence[str]:
    """Read the names of a workspace's agents, retired ones aside."""
    return await tx.fetch_all(_queries["agent_names"], {"workspace_id": workspace_id}, row=str)
