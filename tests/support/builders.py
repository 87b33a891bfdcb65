"""Rows that tests begin with, made by the store's own functions where it has some. Small, and to be put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import insert, select, update

from prebuilds.domain.builds import BackendKind, BuildOutcome, BuildReason, Transition
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import (
    AgentId,
    BuildId,
    JobId,
    OrganizationId,
    PresetId,
    TemplateId,
    UserId,
    VersionId,
    WorkspaceId,
)
from prebuilds.store import schema
from prebuilds.store.audit import Actor
from prebuilds.store.database import Database
from prebuilds.store.jobs.finishing import BuildResult, finish_build, lock_job
from prebuilds.store.jobs.queueing import BuildOrder, QueuedBuild, queue_builds
from prebuilds.store.pool.claiming import Claimed, ClaimOrder, claim
from prebuilds.store.pool.filling import PoolKey, create_prebuilds
from prebuilds.store.pool.locks import lock_prebuild_and_workspace

KEY_ID = "k1"
KEYS: Mapping[str, bytes] = {KEY_ID: b"a secret of tests"}


@dataclass(frozen=True)
class Built:
    """A workspace with its agents by name, and its latest build."""

    workspace_id: WorkspaceId
    organization_id: OrganizationId
    build_id: BuildId
    job_id: JobId
    agents: Mapping[str, AgentId]

    @property
    def agent_id(self) -> AgentId:
        """Its only agent."""
        (agent_id,) = self.agents.values()
        return agent_id


async def make_organization(database: Database, name: str = "acme") -> OrganizationId:
    statement = insert(schema.Organization).values(name=name).returning(schema.Organization.id)
    async with database.transaction("test") as tx:
        return OrganizationId((await tx.execute(statement)).scalar_one())


async def make_user(database: Database, name: str = "alice") -> UserId:
    statement = insert(schema.User).values(issuer="test", subject=name, name=name).returning(schema.User.id)
    async with database.transaction("test") as tx:
        return UserId((await tx.execute(statement)).scalar_one())


async def make_pool(
    database: Database,
    organization_id: OrganizationId,
    *,
    template: str = "python-dev",
    preset: str = "small",
    agents: Sequence[str] = ("main",),
    strategy: ClaimStrategy = ClaimStrategy.PROVISION,
    instances: int | None = 3,
    process: Mapping[str, Any] | None = None,
) -> PoolKey:
    """A template with one active version and one preset that asks for prebuilds."""
    template_id, version_id, preset_id = TemplateId(uuid4()), VersionId(uuid4()), PresetId(uuid4())
    author = await make_user(database, f"author of {template}")
    block = {"startup": "./startup.sh", "env": {"EDITOR": "vi"}} if process is None else dict(process)
    async with database.transaction("test") as tx:
        await tx.execute(
            insert(schema.Template).values(
                id=template_id, organization_id=organization_id, name=template, claim_strategy=strategy
            )
        )
        await tx.execute(
            insert(schema.TemplateVersion).values(
                id=version_id,
                organization_id=organization_id,
                template_id=template_id,
                number=1,
                name="1",
                backend=BackendKind.PROCESS,
                agents=list(agents),
                manifest={"name": template, "process": block},
                source_archive=b"",
                created_by=author,
            )
        )
        await tx.execute(
            update(schema.Template).where(schema.Template.id == template_id).values(active_version_id=version_id)
        )
        await tx.execute(
            insert(schema.Preset).values(
                id=preset_id,
                organization_id=organization_id,
                template_id=template_id,
                version_id=version_id,
                name=preset,
                is_default=True,
                desired_instances=instances,
            )
        )
    return PoolKey(organization_id, template_id, version_id, preset_id, preset)


async def make_starting_prebuild(database: Database, pool: PoolKey) -> Built:
    """A prebuild whose first build is queued and whose agents' tokens are good already."""
    async with database.transaction("test") as tx:
        (queued,) = await create_prebuilds(tx, pool, 1, parameters={"size": "small"}, reason="test")
    return await built(database, queued)


async def make_prebuild(database: Database, pool: PoolKey) -> Built:
    """A prebuild whose first build succeeded; its agents have yet to begin."""
    prebuild = await make_starting_prebuild(database, pool)
    await end_build(database, prebuild.job_id, agents=list(prebuild.agents))
    return prebuild


async def make_workspace(database: Database, pool: PoolKey, owner_id: UserId, name: str = "mine") -> Built:
    """A workspace that was built cold for its owner and never was a prebuild."""
    workspace_id = WorkspaceId(uuid4())
    async with database.transaction("test") as tx:
        await tx.execute(
            insert(schema.Workspace).values(
                id=workspace_id,
                organization_id=pool.organization_id,
                owner_id=owner_id,
                name=name,
                template_id=pool.template_id,
            )
        )
        (queued,) = await queue_builds(
            tx,
            [
                BuildOrder(
                    workspace_id,
                    Transition.START,
                    BuildReason.USER,
                    owner_id,
                    version_id=pool.version_id,
                    preset_id=pool.preset_id,
                    parameters={"size": "small"},
                )
            ],
        )
    workspace = await built(database, queued)
    await end_build(database, workspace.job_id, agents=list(workspace.agents))
    return workspace


async def built(database: Database, queued: QueuedBuild) -> Built:
    """Give the agents' tokens their key, as the job's acquisition does, and say what there is."""
    agent = schema.Agent
    async with database.transaction("test") as tx:
        await tx.execute(update(agent).where(agent.workspace_id == queued.workspace_id).values(token_key_id=KEY_ID))
        rows = await tx.execute(
            select(agent.name, agent.id).where(agent.workspace_id == queued.workspace_id).order_by(agent.name)
        )
        agents = {name: AgentId(id_) for name, id_ in rows}
    return Built(queued.workspace_id, queued.organization_id, queued.build_id, queued.job_id, agents)


async def queue(database: Database, workspace_id: WorkspaceId, transition: Transition, by: UserId) -> Built:
    """Queue a person's build of a workspace."""
    async with database.transaction("test") as tx:
        await lock_prebuild_and_workspace(tx, workspace_id)
        (queued,) = await queue_builds(tx, [BuildOrder(workspace_id, transition, BuildReason.USER, by)])
    return await built(database, queued)


async def end_build(
    database: Database,
    job_id: JobId,
    outcome: BuildOutcome = BuildOutcome.SUCCEEDED,
    *,
    agents: Sequence[str] | None = None,
) -> None:
    """End a build as its daemon would; `agents` are those that it left."""
    async with database.transaction("test") as tx:
        locked = await lock_job(tx, job_id)
        assert locked is not None
        workspace, job = locked
        await finish_build(tx, workspace, job, BuildResult(outcome, agents=agents))


def make_claim_order(pool: PoolKey, owner_id: UserId, *, owner_name: str = "alice", name: str = "mine") -> ClaimOrder:
    """What a person claims from the pool."""
    return ClaimOrder(
        organization_id=pool.organization_id,
        preset_id=pool.preset_id,
        owner_id=owner_id,
        owner_name=owner_name,
        initiator_id=owner_id,
        name=name,
        actor=Actor(f"person:{owner_id}", owner_name),
        method="CreateWorkspace",
        request_id=str(uuid4()),
        fingerprint=b"",
        requested_at=datetime.now(UTC),
        build_id=BuildId(uuid4()),
        parameters={},
        ttl=None,
        autostart="",
    )


async def claim_prebuild(
    database: Database, pool: PoolKey, owner_id: UserId, *, owner_name: str = "alice", name: str = "mine"
) -> Claimed:
    """Claim the best eligible prebuild of the pool; fails where there is none."""
    order = make_claim_order(pool, owner_id, owner_name=owner_name, name=name)
    async with database.transaction("test") as tx:
        claimed = await claim(tx, order, wait_for_locks=True)
    assert isinstance(claimed, Claimed), claimed
    return claimed


async def job_of(database: Database, build_id: UUID) -> JobId:
    """The job behind a build."""
    async with database.transaction("test") as tx:
        found = await tx.scalar(select(schema.Job.id).where(schema.Job.build_id == build_id))
    assert found is not None
    return JobId(found)
