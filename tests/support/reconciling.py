"""A reconciler with its clients: an issuer of tokens, archives to push, and daemons and agents played by hand."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc.aio
import pytest
import pytest_asyncio
import yaml
from pydantic import SecretStr
from sqlalchemy import insert, select, update

from prebuilds.domain.agents import AgentState
from prebuilds.domain.builds import BuildOutcome, BuildReason, FailureClass, JobStatus, Transition
from prebuilds.domain.ids import GatewayId, JobId, WorkspaceId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import CODES, Reason
from prebuilds.reconciler.app import open_app
from prebuilds.reconciler.settings import ReconcilerSettings
from prebuilds.sdk.errors import PrebuildsError, error_of
from prebuilds.sdk.keys import SigningKey, write_jwks
from prebuilds.sdk.tokens import issue_token
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.jobs.finishing import BuildResult, finish_build, lock_job
from prebuilds.store.pool.locks import lock_prebuild_and_workspace
from prebuilds.store.pool.readiness import refresh_readiness
from prebuilds.v1 import admin_pb2, admin_service_pb2, pool_service_pb2, template_service_pb2
from prebuilds.v1.admin_service_pb2_grpc import AdminServiceStub
from prebuilds.v1.pool_service_pb2_grpc import PoolServiceStub
from prebuilds.v1.template_service_pb2_grpc import TemplateServiceStub
from tests.support.waiting import eventually

ORGANIZATION = "acme"
FOR_EVER = timedelta(hours=1)
"""The interval of a tick that a test does not live to see."""


def make_archive(manifest: Mapping[str, Any] | str, files: Mapping[str, bytes] | None = None) -> bytes:
    """Pack a manifest, and files beside it."""
    text = manifest if isinstance(manifest, str) else yaml.safe_dump(dict(manifest))
    return pack({"template.yaml": text.encode(), **(files or {})})


def pack(files: Mapping[str, bytes], *, links: Mapping[str, str] | None = None) -> bytes:
    """Pack files, and symbolic links, under exactly these names."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return packed.getvalue()


def make_manifest(name: str = "python-dev", *, instances: int = 3, **changed: Any) -> dict[str, Any]:
    """A good manifest with one pool, but for what is changed."""
    return {
        "name": name,
        "backend": "process",
        "parameters": [{"name": "size", "default": "small", "options": ["small", "large"]}],
        "presets": [{"name": "small", "parameters": {"size": "small"}, "prebuilds": {"instances": instances}}],
        "process": {"startup": "./startup.sh"},
        **changed,
    }


@contextmanager
def refused(reason: Reason) -> Generator[list[PrebuildsError]]:
    """Expect a refusal for this reason; the list holds it afterwards."""
    caught: list[PrebuildsError] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield caught
    caught.append(error_of(raised.value))
    assert caught[0].reason is reason, caught[0]
    assert caught[0].code.name == CODES[reason].value


@dataclass
class Client:
    """The services of the reconciler, called by one person."""

    channel: grpc.aio.Channel
    token: str
    templates: TemplateServiceStub = field(init=False)
    pools: PoolServiceStub = field(init=False)
    admin: AdminServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.templates = TemplateServiceStub(self.channel)
        self.pools = PoolServiceStub(self.channel)
        self.admin = AdminServiceStub(self.channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)

    async def make_organization(self, name: str = ORGANIZATION) -> admin_pb2.Organization:
        request = admin_service_pb2.CreateOrganizationRequest(organization=admin_pb2.Organization(name=name))
        return (await self.admin.CreateOrganization(request, metadata=self.metadata)).organization

    async def push(
        self, manifest: Mapping[str, Any] | None = None, *, archive: bytes | None = None, **fields: Any
    ) -> template_service_pb2.PushTemplateVersionResponse:
        content = archive if archive is not None else make_archive(manifest or make_manifest())
        request = template_service_pb2.PushTemplateVersionRequest(
            organization=fields.pop("organization", ORGANIZATION), archive=content, **fields
        )
        return await self.templates.PushTemplateVersion(request, metadata=self.metadata)

    async def pool(self, preset_id: str) -> Any:
        request = pool_service_pb2.GetPoolRequest(id=preset_id)
        return (await self.pools.GetPool(request, metadata=self.metadata)).pool

    async def reconcile(self) -> Any:
        answer = await self.pools.ReconcileNow(pool_service_pb2.ReconcileNowRequest(), metadata=self.metadata)
        return answer.statistics


@dataclass
class Reconcilers:
    """Starts reconcilers on one database, and clients for them."""

    database_url: str
    nats_url: str
    folder: Path
    stack: AsyncExitStack
    key: SigningKey = field(default_factory=SigningKey.generate)

    def settings(self, **changed: Any) -> ReconcilerSettings:
        jwks = self.folder / "people.json"
        write_jwks(jwks, self.key)
        given: dict[str, Any] = {
            "database_url": SecretStr(self.database_url),
            "nats_url": SecretStr(self.nats_url),
            "token_keys_file": jwks,
            "token_issuer_authoritative": True,
            "metrics_address": "",
            "migrate": False,
            "reconciliation_interval": FOR_EVER,
            "database_pool_size": 4,
        }
        return ReconcilerSettings(**{**given, **changed})

    async def start(self, **changed: Any) -> str:
        """Start one and give its address."""
        app = await self.stack.enter_async_context(open_app(self.settings(**changed)))
        return app.grpc

    async def client(
        self,
        address: str,
        *,
        operator: bool = True,
        name: str = "root",
        roles: Iterable[Role] = (),
        at: str = ORGANIZATION,
    ) -> Client:
        held = {at: frozenset(roles)} if roles else {}
        token = issue_token(
            self.key,
            issuer="prebuilds",
            audience="prebuilds",
            subject=name,
            organizations=held,
            operator=operator,
        )
        options = [("grpc.max_send_message_length", 64 * 1024**2)]
        channel = await self.stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
        return Client(channel, token)


@asynccontextmanager
async def open_reconcilers(database_url: str, nats_url: str, folder: Path) -> AsyncGenerator[Reconcilers]:
    async with AsyncExitStack() as stack:
        yield Reconcilers(database_url, nats_url, folder, stack)


@pytest_asyncio.fixture
async def reconcilers(database_url: str, nats_url: str, tmp_path: Path) -> AsyncIterator[Reconcilers]:
    """Reconcilers of this test's own."""
    async with open_reconcilers(database_url, nats_url, tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture
async def operator(reconcilers: Reconcilers) -> Client:
    """An operator at a running reconciler, with the organisation `acme`."""
    client = await reconcilers.client(await reconcilers.start())
    await client.make_organization()
    return client


@dataclass(frozen=True)
class Stage:
    """Plays daemons, agents and gateways: brings what is queued to where a test wants it."""

    database: Database

    async def jobs(self, preset_id: str, transition: Transition = Transition.START) -> Sequence[JobId]:
        """The jobs for a preset's pool that nobody has taken."""
        statement = (
            select(schema.Job.id)
            .join(schema.Build, schema.Build.id == schema.Job.build_id)
            .where(
                schema.Build.preset_id == UUID(preset_id),
                schema.Build.transition == transition,
                schema.Build.reason == BuildReason.PREBUILD,
                schema.Job.status == JobStatus.PENDING,
            )
            .order_by(schema.Job.created_at, schema.Job.id)
        )
        async with self.database.transaction("test") as tx:
            return [JobId(id_) for id_ in (await tx.execute(statement)).scalars()]

    async def finish(
        self,
        job_ids: Sequence[JobId],
        outcome: BuildOutcome = BuildOutcome.SUCCEEDED,
        failure_class: FailureClass | None = None,
        *,
        error: str = "",
    ) -> list[WorkspaceId]:
        """End these builds as a daemon would."""
        ended: list[WorkspaceId] = []
        for job_id in job_ids:
            async with self.database.transaction("test") as tx:
                locked = await lock_job(tx, job_id)
                assert locked is not None
                await finish_build(tx, *locked, BuildResult(outcome, failure_class, error=error))
                ended.append(locked[0].workspace_id)
        return ended

    async def make_eligible(self, preset_id: str) -> list[WorkspaceId]:
        """Build all that is queued of a preset, with agents that are ready and attached to a live gateway."""
        built = await self.finish(await self.jobs(preset_id))
        gateway = GatewayId(uuid4())
        async with self.database.transaction("test") as tx:
            await tx.execute(insert(schema.Gateway).values(id=gateway, address="test:1"))
        for workspace_id in built:
            async with self.database.transaction("test") as tx:
                await lock_prebuild_and_workspace(tx, workspace_id)
                agents = update(schema.Agent).where(schema.Agent.workspace_id == workspace_id)
                await tx.execute(agents.values(state=AgentState.READY))
                prebuilds = update(schema.Prebuild).where(schema.Prebuild.workspace_id == workspace_id)
                await tx.execute(prebuilds.values(gateways=[gateway], disconnected_at=None))
                await refresh_readiness(tx, [workspace_id])
        return built

    async def age(self, workspace_id: WorkspaceId, by: timedelta) -> None:
        """Make a prebuild older than it is."""
        row = schema.Prebuild
        values = {"created_at": row.created_at - by, "expires_at": row.expires_at - by}
        async with self.database.transaction("test") as tx:
            await tx.execute(update(row).where(row.workspace_id == workspace_id).values(values))

    async def states(self, preset_id: str) -> list[str]:
        """The states of a preset's prebuilds, in order."""
        statement = select(schema.Prebuild.state).where(schema.Prebuild.preset_id == UUID(preset_id))
        async with self.database.transaction("test") as tx:
            return sorted(state.value for state in (await tx.execute(statement)).scalars())

    async def until_states(self, preset_id: str, *states: str) -> None:
        """Wait until the preset's prebuilds are in these states, given in order."""

        async def are_there() -> bool:
            return await self.states(preset_id) == list(states)

        await eventually(are_there, what=f"the pool has {states}")


@pytest_asyncio.fixture
async def stage(database: Database) -> Stage:
    """Daemons, agents and gateways, played by hand."""
    return Stage(database)
