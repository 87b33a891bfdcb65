"""A job just acquired, with everything that is needed to do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prebuilds.domain.builds import BuildReason, Transition
from prebuilds.domain.ids import AgentId, JobId, TemplateId, UserId, VersionId
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.provisioner.queries")


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a job's template may see, and what its backend needs."""

    organization_name: str
    number: int
    transition: Transition
    reason: BuildReason
    workspace_name: str
    owner_id: UserId
    owner_name: str
    template_id: TemplateId
    template_name: str
    version_id: VersionId
    version_name: str
    parameters: Mapping[str, str]
    generation: int
    host: str | None
    source_archive: bytes = field(repr=False)
    provisioner_state: bytes | None = field(repr=False)
    """What the workspace's newest earlier build left; None where none left anything."""


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """An agent that the workspace shall have, with what its token is made of."""

    id: AgentId
    name: str
    token_key_id: str
    token_epoch: int


async def read_job_facts(tx: Transaction, job_id: JobId) -> JobFacts:
    """Read what belongs to a job that exists."""
    facts = await tx.fetch_one(_queries["acquired_job"], {"job_id": job_id}, row=JobFacts)
    assert facts is not None, "a job without a build"  # noqa: S101 - foreign keys hold it
    return facts


async def read_job_agents(tx: Transaction, job_id: JobId) -> Sequence[AgentFacts]:
    """Read the agents that the job's workspace shall have, by name."""
    return await tx.fetch_all(_queries["acquired_agents"], {"job_id": job_id}, row=AgentFacts)
