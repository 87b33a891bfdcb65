"""A provisioner service with something to build: an organisation, a template with a preset, keys, and queued jobs."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import grpc.aio
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import insert

from prebuilds.chassis.identity.daemon_keys import make_daemon_key
from prebuilds.chassis.process import App
from prebuilds.domain.builds import BackendKind, BuildReason, Transition
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import (
    BuildId,
    OrganizationId,
    PresetId,
    ProvisionerKeyId,
    TemplateId,
    UserId,
    VersionId,
    WorkspaceId,
)
from prebuilds.provisioner.app import open_app
from prebuilds.provisioner.settings import ProvisionerSettings
from prebuilds.sdk.channels import open_channel
from prebuilds.sdk.errors import error_of
from prebuilds.store import schema
from prebuilds.store.audit import Actor
from prebuilds.store.database import Database
from prebuilds.store.jobs.queueing import BuildOrder, QueuedBuild, queue_builds
from prebuilds.store.pool.claiming import Claimed, ClaimOrder, claim
from prebuilds.store.pool.filling import PoolKey, create_prebuilds
from prebuilds.store.pool.locks import lock_prebuild_and_workspace
from prebuilds.v1 import job_pb2, provisioner_service_pb2, template_pb2
from prebuilds.v1.provisioner_service_pb2_grpc import ProvisionerServiceStub

T = TypeVar("T")

HOST = "host-1"
AGENT_KEYS = {"k1": b"an agent's key"}
GATEWAY = "127.0.0.1:7083"
PARAMETERS = {"size": "small"}


def make_archive(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content.encode())
            entry.mode = 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(content.encode()))
    return packed.getvalue()


ARCHIVE = make_archive({"template.yaml": "name: python-dev\n", "bin/startup.sh": "#!/bin/sh\n"})


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organisation with one template, one version, one preset, and a person."""

    database: Database
    organization_id: OrganizationId
    pool: PoolKey
    person_id: UserId
    person_name: str

    async def fill(self, count: int = 1) -> Sequence[QueuedBuild]:
        """Queue prebuilds as the reconciler does."""
        async with self.database.transaction("fill") as tx:
            return await create_prebuilds(tx, self.pool, count, parameters=PARAMETERS, reason="test")

    async def build_for_person(self, *, daily_cost: int | None = None) -> QueuedBuild:
        """Queue a cold workspace of the person's."""
        workspace_id = WorkspaceId(uuid4())
        async with self.database.transaction("create") as tx:
            await tx.execute(
                insert(schema.Workspace).values(
                    id=workspace_id,
                    organization_id=self.organization_id,
                    owner_id=self.person_id,
                    name=f"own-{workspace_id.hex[:6]}",
                    template_id=self.pool.template_id,
                )
            )
            order = BuildOrder(
                workspace_id,
                Transition.START,
                BuildReason.USER,
                self.person_id,
                version_id=self.pool.version_id,
                preset_id=self.pool.preset_id,
                parameters=PARAMETERS,
                daily_cost=daily_cost,
            )
            return (await queue_builds(tx, [order]))[0]

    async def build_again(self, workspace_id: WorkspaceId, transition: Transition) -> QueuedBuild:
        async with self.database.transaction("build") as tx:
            await lock_prebuild_and_workspace(tx, workspace_id)
            return (await queue_builds(tx, [BuildOrder(workspace_id, transition, BuildReason.USER, self.person_id)]))[0]

    async def make_eligible(self, workspace_id: WorkspaceId) -> None:
        """Do what a gateway does once the agents of a running prebuild are ready and attached."""
        gateway_id = uuid4()
        async with self.database.transaction("make eligible") as tx:
            await tx.execute(insert(schema.Gateway).values(id=gateway_id, address="gateway"))
            await tx.run(
                b"UPDATE agents SET state = 'ready', gateway_id = %(g)s WHERE workspace_id = %(w)s",
                {"g": gateway_id, "w": workspace_id},
            )
            await tx.run(
                b"UPDATE prebuilds SET ready_at = now(), gateways = ARRAY[%(g)s]::uuid[] WHERE workspace_id = %(w)s",
                {"g": gateway_id, "w": workspace_id},
            )

    async def claim(self, name: str = "mine") -> Claimed:
        async with self.database.transaction("claim") as tx:
            claimed = await claim(
                tx,
                ClaimOrder(
                    organization_id=self.organization_id,
                    preset_id=self.pool.preset_id,
                    owner_id=self.person_id,
                    owner_name=self.person_name,
                    initiator_id=self.person_id,
                    name=name,
                    actor=Actor(f"person:{self.person_id}", self.person_name),
                    method="CreateWorkspace",
                    request_id=str(uuid4()),
                    fingerprint=b"f" * 32,
                    requested_at=datetime.now(UTC),
                    build_id=BuildId(uuid4()),
                    parameters={},
                    ttl=None,
                    autostart="",
                ),
            )
        assert isinstance(claimed, Claimed)
        return claimed

    async def make_key(self, *, everywhere: bool = False, **tags: str) -> str:
        """The token of a new provisioner key."""
        key = make_daemon_key(ProvisionerKeyId(uuid4()))
        async with self.database.transaction("make key") as tx:
            await tx.execute(
                insert(schema.ProvisionerKey).values(
                    id=key.key_id,
                    organization_id=None if everywhere else self.organization_id,
                    name=f"key-{key.key_id.hex[:6]}",
                    secret_sha256=key.secret_sha256,
                    tags=tags,
                )
            )
        return key.token


async def make_tenant(
    database: Database,
    name: str = "default",
    *,
    strategy: ClaimStrategy = ClaimStrategy.PROVISION,
    backend: BackendKind = BackendKind.PROCESS,
    agents: Sequence[str] = ("main",),
    archive: bytes = ARCHIVE,
) -> Tenant:
    organization_id, person_id = OrganizationId(uuid4()), UserId(uuid4())
    template_id, version_id, preset_id = TemplateId(uuid4()), VersionId(uuid4()), PresetId(uuid4())
    person_name = f"alice-of-{name}"
    async with database.transaction("make tenant") as tx:
        await tx.execute(insert(schema.Organization).values(id=organization_id, name=name))
        await tx.execute(insert(schema.User).values(id=person_id, issuer="test", subject=person_name, name=person_name))
        await tx.execute(
            insert(schema.Template).values(
                id=template_id, organization_id=organization_id, name="python-dev", claim_strategy=strategy
            )
        )
        await tx.execute(
            insert(schema.TemplateVersion).values(
                id=version_id,
                organization_id=organization_id,
                template_id=template_id,
                number=1,
                name="v1",
                backend=backend,
                agents=list(agents),
                manifest={},
                source_archive=archive,
                created_by=person_id,
            )
        )
        await tx.execute(
            insert(schema.Preset).values(
                id=preset_id,
                organization_id=organization_id,
                template_id=template_id,
                version_id=version_id,
                name="small",
                is_default=True,
                desired_instances=3,
            )
        )
        await tx.run(
            b"UPDATE templates SET active_version_id = %(v)s WHERE id = %(t)s", {"v": version_id, "t": template_id}
        )
    pool = PoolKey(organization_id, template_id, version_id, preset_id, "small")
    return Tenant(database, organization_id, pool, person_id, person_name)


@dataclass(frozen=True, slots=True)
class DaemonClient:
    """A daemon as the service sees it."""

    stub: ProvisionerServiceStub
    name: str = "daemon-1"
    host_id: str = HOST
    backends: Sequence[Any] = (template_pb2.BACKEND_KIND_PROCESS,)

    async def acquire(self, max_wait: timedelta = timedelta(0)) -> job_pb2.AcquiredJob | None:
        request = provisioner_service_pb2.AcquireJobRequest(
            daemon=job_pb2.Daemon(name=self.name, host_id=self.host_id, version="1.0.0", backends=self.backends)
        )
        request.max_wait.FromTimedelta(max_wait)
        response = await self.stub.AcquireJob(request, timeout=60)
        return response.job if response.HasField("job") else None

    async def acquire_some(self) -> job_pb2.AcquiredJob:
        job = await self.acquire()
        assert job is not None
        return job

    async def update(
        self, job: job_pb2.AcquiredJob, logs: Sequence[job_pb2.JobLog] = ()
    ) -> provisioner_service_pb2.UpdateJobResponse:
        return await self.stub.UpdateJob(provisioner_service_pb2.UpdateJobRequest(lease=job.lease, logs=logs))

    async def complete(self, job: job_pb2.AcquiredJob, **fields: Any) -> job_pb2.Job:
        fields = {"agent_names": [agent.name for agent in job.agents], "host_id": self.host_id} | fields
        request = provisioner_service_pb2.CompleteJobRequest(lease=job.lease, **fields)
        return (await self.stub.CompleteJob(request)).job

    async def fail(self, job: job_pb2.AcquiredJob, **fields: Any) -> job_pb2.Job:
        return (await self.stub.FailJob(provisioner_service_pb2.FailJobRequest(lease=job.lease, **fields))).job


@dataclass(frozen=True, slots=True)
class Provisioner:
    """A running service and its daemons' channels."""

    app: App
    stack: AsyncExitStack = field(repr=False)

    async def daemon(self, token: str, **fields: Any) -> DaemonClient:
        channel = await self.stack.enter_async_context(open_channel(self.app.grpc, token=token))
        return DaemonClient(ProvisionerServiceStub(channel), **fields)


def provisioner_settings(database_url: str, nats_url: str, **changed: Any) -> ProvisionerSettings:
    given: dict[str, Any] = {
        "database_url": SecretStr(database_url),
        "database_pool_size": 8,
        "nats_url": SecretStr(nats_url),
        "agent_token_keys": {key_id: SecretStr(key.decode()) for key_id, key in AGENT_KEYS.items()},
        "gateway_url": GATEWAY,
        "metrics_address": "",
        "migrate": False,
        "sweep_interval": timedelta(minutes=1),
        "drain_grace": timedelta(seconds=2),
    }
    return ProvisionerSettings(**(given | changed))


@asynccontextmanager
async def open_provisioner(settings: ProvisionerSettings) -> AsyncGenerator[Provisioner]:
    async with open_app(settings) as app, AsyncExitStack() as stack:
        yield Provisioner(app, stack)


@pytest_asyncio.fixture
async def provisioner(database_url: str, nats_url: str) -> AsyncIterator[Provisioner]:
    """The service with its usual settings."""
    async with open_provisioner(provisioner_settings(database_url, nats_url)) as running:
        yield running


@pytest_asyncio.fixture
async def tenant(database: Database) -> Tenant:
    """An organisation that builds by processes."""
    return await make_tenant(database)


@pytest_asyncio.fixture
async def daemon(provisioner: Provisioner, tenant: Tenant) -> DaemonClient:
    """A daemon of that organisation."""
    return await provisioner.daemon(await tenant.make_key(host=HOST))


async def fetch(database: Database, query: bytes, **params: Any) -> tuple[Any, ...]:
    """The first row of a query."""
    async with database.read("look") as tx:
        row = await (await tx.run(query, params)).fetchone()
    assert row is not None
    return row


async def job_status(database: Database, job_id: str | UUID) -> str:
    return str((await fetch(database, b"SELECT status FROM jobs WHERE id = %(id)s", id=job_id))[0])


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason of a refusal."""
    return error_of(error).reason_name
