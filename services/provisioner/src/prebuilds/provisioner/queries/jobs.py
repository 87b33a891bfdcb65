"""Reads jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prebuilds.domain.ids import JobId, WorkspaceId
from prebuilds.provisioner.queries.views import JobView
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.provisioner.queries")


async def read_job(tx: Transaction, job_id: JobId) -> JobView:
    """Read a job that exists."""
    view = await tx.fetch_one(_queries["job"], {"job_id": job_id}, row=JobView)
    assert view is not None, "a job without a build"  # noqa: S101 - foreign keys hold it
    return view


async def read_agent_names(tx: Transaction, workspace_id: WorkspaceId) -> Sequence[str]:
    """Read the names of a workspace's agents, retired ones aside."""
    return await tx.fetch_all(_queries["agent_names"], {"workspace_id": workspace_id}, row=str)
