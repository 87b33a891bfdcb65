"""The claims service in this process, people who call it, and pools for them to claim from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.rpc import (  # pyright: ignore[reportMissingTypeStubs] - they lie beside a partial stub package
    error_details_pb2,
    status_pb2,
)
from grpc_status import rpc_status
from pydantic import SecretStr
from sqlalchemy import insert, select, update

from prebuilds.chassis.status import reason_of
from prebuilds.claims.app import open_app
from prebuilds.claims.settings import ClaimsSettings
from prebuilds.domain.agents import AgentState
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import OrganizationId, WorkspaceId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.sdk.keys import SigningKey, write_jwks
from prebuilds.sdk.tokens import issue_token
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey, create_prebuilds
from prebuilds.v1 import workspace_service_pb2 as pb
from prebuilds.v1.claim_service_pb2_grpc import ClaimServiceStub
from prebuilds.v1.workspace_service_pb2_grpc import WorkspaceServiceStub
from tests.support.builders import make_organization, make_pool

ISSUER = "prebuilds"


@dataclass(frozen=True)
class Refused:
    """A refusal as a caller sees it."""

    code: grpc.StatusCode
    reason: str
    message: str
    fields: tuple[str, ...]
    resource: str
    metadata: Mapping[str, str]
    retries: bool


def refusal(error: grpc.aio.AioRpcError) -> Refused:
    """Read the details of a failed call."""
    status: Any = cast("Any", rpc_status).from_call(error)  # its stubs know calls only
    assert isinstance(status, status_pb2.Status), error
    info, bad, resource = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.ResourceInfo(),
    )
    retry = error_details_pb2.RetryInfo()
    retries = False
    for holder in status.details:
        for detail in (info, bad, resource):
            holder.Unpack(detail)
        retries = retries or holder.Unpack(retry)
    return Refused(
        error.code(),
        reason_of(status) or "",
        status.message,
        tuple(violation.field for violation in bad.field_violations),
        resource.resource_type,
        dict(info.metadata),
        retries,
    )


class refuses:  # noqa: N801 - reads as a verb where it is used
    """`with refuses(Reason.X) as refused:` - the call inside must be refused for this reason."""

    def __init__(self, reason: Reason) -> None:
        self._reason = reason
        self._raises = pytest.raises(grpc.aio.AioRpcError)
        self.refused: Refused | None = None

    def __enter__(self) -> Self:
        self._info = self._raises.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        handled = self._raises.__exit__(kind, error, trace)
        self.refused = refusal(self._info.value)
        assert self.refused.reason == self._reason, self.refused
        return handled

    @property
    def fields(self) -> tuple[str, ...]:
        assert self.refused is not None
        return self.refused.fields

    @property
    def code(self) -> grpc.StatusCode:
        assert self.refused is not None
        return self.refused.code


@dataclass
class ClaimsService:
    """The running service; `person` gives somebody to call it as."""

    address: str
    key: SigningKey
    stack: AsyncExitStack
    people: dict[str, Caller] = field(default_factory=dict[str, "Caller"])

    def token(
        self,
        subject: str,
        roles: Mapping[str, frozenset[Role]],
        *,
        operator: bool = False,
        key: SigningKey | None = None,
    ) -> str:
        return issue_token(
            key or self.key,
            issuer=ISSUER,
            audience=ISSUER,
            subject=subject,
            organizations=roles,
            operator=operator,
        )

    async def person(
        self, subject: str = "alice", *roles: Role, organization: str = "acme", operator: bool = False
    ) -> Caller:
        held = {organization: frozenset(roles or (Role.MEMBER,))}
        return await self.caller(f"Bearer {self.token(subject, held, operator=operator)}")

    async def caller(self, authorization: str | None) -> Caller:
        channel = await self.stack.enter_async_context(grpc.aio.insecure_channel(self.address))
        return Caller(channel, authorization)


class Caller:
    """Somebody who calls the service."""

    def __init__(self, channel: grpc.aio.Channel, authorization: str | None) -> None:
        # grpcio's stubs know calls of both kinds; what these give is awaited or iterated.
        self.workspaces: Any = WorkspaceServiceStub(channel)
        self.claims: Any = ClaimServiceStub(channel)
        self.metadata = () if authorization is None else (("authorization", authorization),)

    async def create(self, **wanted: Any) -> pb.CreateWorkspaceResponse:
        values: dict[str, Any] = {"organization": "acme", "template": "python-dev", **wanted}
        request = pb.CreateWorkspaceRequest(**values)
        return await self.workspaces.CreateWorkspace(request, metadata=self.metadata)

    async def call(self, method: str, request: Any) -> Any:
        stub = self.workspaces if hasattr(self.workspaces, method) else self.claims
        return await getattr(stub, method)(request, metadata=self.metadata)

    def watch(self, workspace_id: str, resume_token: str = "") -> Any:
        request = pb.WatchWorkspaceRequest(id=workspace_id, resume_token=resume_token)
        return self.workspaces.WatchWorkspace(request, metadata=self.metadata)


@pytest_asyncio.fixture
async def claims_service(database_url: str, nats_url: str, tmp_path: Path) -> AsyncIterator[ClaimsService]:
    async for service in run_claims(database_url, nats_url, tmp_path):
        yield service


async def run_claims(database_url: str, nats_url: str, folder: Path) -> AsyncIterator[ClaimsService]:
    key = SigningKey.generate()
    jwks = folder / "people.json"
    write_jwks(jwks, key)
    settings = ClaimsSettings(
        database_url=SecretStr(database_url),
        nats_url=SecretStr(nats_url),
        token_keys_file=jwks,
        token_issuer_authoritative=True,
        migrate=False,
        drain_grace=timedelta(seconds=1),
    )
    async with open_app(settings) as app, AsyncExitStack() as stack:
        yield ClaimsService(app.grpc, key, stack)


@pytest_asyncio.fixture
async def acme(database: Database) -> OrganizationId:
    return await make_organization(database, "acme")


@pytest_asyncio.fixture
async def pool(database: Database, acme: OrganizationId) -> PoolKey:
    """Of template `python-dev`, whose preset `small` fixes `size`; `region` is immutable, `dotfiles` mutable."""
    return await make_sized_pool(database, acme)


async def make_sized_pool(
    database: Database,
    organization_id: OrganizationId,
    *,
    strategy: ClaimStrategy = ClaimStrategy.PROVISION,
    **more: Any,
) -> PoolKey:
    made = await make_pool(database, organization_id, strategy=strategy, **more)
    async with database.transaction("test") as tx:
        for ordinal, (name, type_, default, mutable, options) in enumerate(
            [
                ("size", "string", "small", False, ["small", "large"]),
                ("region", "string", "eu", False, []),
                ("dotfiles", "string", "", True, []),
                ("cpus", "number", "2", True, []),
                ("debug", "bool", "false", True, []),
            ]
        ):
            await tx.execute(
                insert(schema.TemplateParameter).values(
                    version_id=made.version_id,
                    name=name,
                    ordinal=ordinal,
                    type=type_,
                    default_value=default,
                    mutable=mutable,
                    options=options,
                )
            )
        await tx.execute(insert(schema.PresetParameter).values(preset_id=made.preset_id, name="size", value="small"))
    return made


async def live_gateway(database: Database) -> UUID:
    async with database.transaction("test") as tx:
        found = await tx.scalar(select(schema.Gateway.id).limit(1))
        if found is None:
            found = await tx.scalar(insert(schema.Gateway).values(address="gateway:1").returning(schema.Gateway.id))
    assert found is not None
    return found


async def ready_prebuilds(database: Database, pool: PoolKey, count: int = 1) -> list[WorkspaceId]:
    """Prebuilds that are eligible: built, ready and connected, in the order in which they became ready."""
    gateway = await live_gateway(database)
    made: list[WorkspaceId] = []
    for _ in range(count):
        async with database.transaction("test") as tx:
            (queued,) = await create_prebuilds(
                tx, pool, 1, parameters={"size": "small", "region": "eu", "dotfiles": "", "cpus": "2"}, reason="test"
            )
            workspace_id = queued.workspace_id
            await tx.run(
                b"UPDATE jobs SET status = 'succeeded', finished_at = now() WHERE id = %(id)s", {"id": queued.job_id}
            )
            await tx.execute(
                update(schema.Build)
                .where(schema.Build.id == queued.build_id)
                .values(outcome="succeeded", host="host-1", daily_cost=7)
            )
            await tx.execute(
                update(schema.Agent)
                .where(schema.Agent.workspace_id == workspace_id)
                .values(state=AgentState.READY, incarnation=1, gateway_id=gateway, connection_id=uuid4())
            )
            await tx.run(
                b"UPDATE prebuilds SET state = 'running', ready_at = clock_timestamp(), gateways = ARRAY[%(gateway)s],"
                b" disconnected_at = NULL WHERE workspace_id = %(id)s",
                {"id": workspace_id, "gateway": gateway},
            )
        made.append(workspace_id)
    return made


async def change_prebuild(database: Database, workspace_id: WorkspaceId, **values: Any) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Prebuild).where(schema.Prebuild.workspace_id == workspace_id).values(**values))


async def change(database: Database, table: Any, id_: UUID, **values: Any) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(update(table).where(table.id == id_).values(**values))


async def agents_are(database: Database, workspace_id: UUID, state: AgentState, generation: int) -> None:
    """What the agents' reports leave."""
    async with database.transaction("test") as tx:
        await tx.execute(
            update(schema.Agent)
            .where(schema.Agent.workspace_id == workspace_id)
            .values(state=state, generation=generation, incarnation=schema.Agent.incarnation + 1)
        )


async def rows(database: Database, table: Any, **where: Any) -> list[Any]:
    """All rows of a table, as they are committed."""
    async with database.read("test") as tx:
        statement = select(*table.__table__.columns).filter_by(**where)
        return list((await tx.execute(statement)).all())


async def pooled(database: Database, pool: PoolKey) -> int:
    """How many prebuilds the pool has."""
    return len(await rows(database, schema.Prebuild, preset_id=pool.preset_id))
