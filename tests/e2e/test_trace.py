"""One distributed trace from CreateWorkspace to the acknowledgement (design section 9), for both claim strategies.

Services and daemon run in this process, each with its own provider, whose spans are read from memory; the agent is a
real process, which passes the trace on without telling anybody of its own part.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode
from pydantic import SecretStr

from prebuilds.agent_gateway.app import open_app as open_gateway
from prebuilds.agent_gateway.settings import GatewaySettings
from prebuilds.claims.app import open_app as open_claims
from prebuilds.claims.settings import ClaimsSettings
from prebuilds.domain.principals import Role
from prebuilds.provisioner.app import open_app as open_provisioner
from prebuilds.provisioner.settings import ProvisionerSettings
from prebuilds.provisioner_daemon.app import open_app as open_daemon
from prebuilds.provisioner_daemon.backends.process.agents import kill_all_of
from prebuilds.provisioner_daemon.settings import DaemonSettings
from prebuilds.reconciler.app import open_app as open_reconciler
from prebuilds.reconciler.settings import ReconcilerSettings
from prebuilds.sdk.client import PrebuildsClient, open_client
from prebuilds.sdk.keys import read_or_create_key
from prebuilds.sdk.tokens import issue_token
from prebuilds.v1 import admin_pb2, admin_service_pb2, claim_pb2, pool_service_pb2
from tests.support.waiting import eventually

ORGANIZATION = "acme"
TEMPLATE = "python-dev"
HOST = "host-1"
PATIENCE = 60
RARELY = timedelta(seconds=30)
"""How often the gateway looks by itself; a handover that it finds so, before the event, carries no trace."""
PARTS = ("client", "reconciler", "claims", "provisioner", "agent-gateway", "provisioner-daemon")


@dataclass
class Telling:
    """The spans of every part, by the part's name."""

    exporters: dict[str, InMemorySpanExporter] = field(
        default_factory=lambda: {name: InMemorySpanExporter() for name in PARTS}
    )

    def processors(self, service: str) -> Sequence[SimpleSpanProcessor]:
        return [SimpleSpanProcessor(self.exporters[service])]

    def of(self, trace_id: int) -> Sequence[Span]:
        """The finished spans of a trace, of all parts, in the order in which they began."""
        found = [
            Span(service, span, context)
            for service, exporter in self.exporters.items()
            for span in exporter.get_finished_spans()
            if (context := span.context) is not None and context.trace_id == trace_id
        ]
        return sorted(found, key=lambda span: span.span.start_time or 0)


@dataclass(frozen=True)
class Span:
    """A span and whose it is."""

    service: str
    span: ReadableSpan
    context: SpanContext

    @property
    def name(self) -> tuple[str, str]:
        return self.service, self.span.name.removeprefix("prebuilds.v1.")

    @property
    def parent_id(self) -> int | None:
        return None if self.span.parent is None else self.span.parent.span_id


@dataclass(frozen=True)
class System:
    """Everything from the template to the agent, with a daemon on this host."""

    telling: Telling
    admin: PrebuildsClient
    alice: PrebuildsClient
    folder: Path

    async def warm_pool(self, strategy: str) -> None:
        """Push a template and wait for its one prebuild."""
        template = self.folder / TEMPLATE
        template.mkdir()
        manifest = {
            "name": TEMPLATE,
            "backend": "process",
            "claim_strategy": strategy,
            "presets": [{"name": "p", "default": True, "prebuilds": {"instances": 1}}],
            "process": {"startup": "./startup.sh"},
        }
        (template / "template.yaml").write_text(yaml.safe_dump(manifest))
        (template / "startup.sh").write_text("#!/bin/sh\n")
        (template / "startup.sh").chmod(0o755)
        await self.admin.push_template(template, ORGANIZATION, activate=True)
        await eventually(self._is_full, PATIENCE, what="the pool is full")

    async def _is_full(self) -> bool:
        request = pool_service_pb2.ListPoolsRequest(organization=ORGANIZATION)
        return any(
            pool.counts.eligible == 1 for pool in (await self.admin.call(self.admin.pools.ListPools, request)).pools
        )


@asynccontextmanager
async def open_system(database_url: str, nats_url: str, folder: Path) -> AsyncGenerator[System]:
    telling = Telling()
    state = (folder / "state").resolve()
    people = read_or_create_key(folder / "people.pem", folder / "people.jwks")
    common: dict[str, Any] = {
        "database_url": SecretStr(database_url),
        "database_pool_size": 4,
        "nats_url": SecretStr(nats_url),
        "metrics_address": "",
        "migrate": False,
        "drain_grace": timedelta(seconds=1),
    }
    identity: dict[str, Any] = {"token_keys_file": folder / "people.jwks", "token_issuer_authoritative": True}
    agents: dict[str, Any] = {"agent_token_keys": {"k1": SecretStr("a key of agents' tokens")}}

    def token(person: str, *roles: Role, operator: bool = False) -> str:
        return issue_token(
            people,
            issuer="prebuilds",
            audience="prebuilds",
            subject=person,
            organizations={ORGANIZATION: roles} if roles else {},
            operator=operator,
            lifetime=timedelta(hours=1),
        )

    async with AsyncExitStack() as stack:
        reconciler = await stack.enter_async_context(
            open_reconciler(ReconcilerSettings(**common, **identity), span_processors=telling.processors("reconciler"))
        )
        claims = await stack.enter_async_context(
            open_claims(ClaimsSettings(**common, **identity), span_processors=telling.processors("claims"))
        )
        gateway = await stack.enter_async_context(
            open_gateway(
                GatewaySettings(**common, **agents, check_interval=RARELY),
                span_processors=telling.processors("agent-gateway"),
            )
        )
        provisioner = await stack.enter_async_context(
            open_provisioner(
                ProvisionerSettings(**common, **identity, **agents, gateway_url=gateway.grpc),
                span_processors=telling.processors("provisioner"),
            )
        )

        async def client(token: str) -> PrebuildsClient:
            opened = open_client(reconciler=reconciler.grpc, claims=claims.grpc, token=token)
            return await stack.enter_async_context(opened)

        key = await make_daemon_key(await client(token("root", operator=True)))
        daemon: dict[str, Any] = {
            "provisioner_address": provisioner.grpc,
            "provisioner_key": SecretStr(key),
            "host_id": HOST,
            "state_root": state,
            "metrics_address": "",
        }
        stack.callback(kill_agents, state)
        await stack.enter_async_context(
            open_daemon(DaemonSettings(**daemon), span_processors=telling.processors("provisioner-daemon"))
        )
        yield System(
            telling, await client(token("admin", Role.OWNER)), await client(token("alice", Role.MEMBER)), folder
        )


def kill_agents(state: Path) -> None:
    """Kill all agents; again where a supervisor had just started one."""
    while kill_all_of(state):
        pass


async def make_daemon_key(operator: PrebuildsClient) -> str:
    """Make the organisation and the key of its daemon."""
    organization = admin_pb2.Organization(name=ORGANIZATION)
    await operator.call(
        operator.admin.CreateOrganization, admin_service_pb2.CreateOrganizationRequest(organization=organization)
    )
    key = admin_pb2.ProvisionerKey(name=HOST, tags={"host": HOST})
    created = await operator.call(
        operator.admin.CreateProvisionerKey,
        admin_service_pb2.CreateProvisionerKeyRequest(organization=ORGANIZATION, provisioner_key=key),
    )
    return created.secret


CREATE = ("claims", "WorkspaceService/CreateWorkspace")
DUE = ("agent-gateway", "process handover_due")
REPORT = ("agent-gateway", "AgentGatewayService/ReportState")
PATHS = {
    "provision": [
        CREATE,
        ("provisioner-daemon", "build workspace"),
        ("provisioner", "ProvisionerService/CompleteJob"),
        DUE,
        REPORT,
    ],
    "instant": [CREATE, DUE, REPORT],
}


@pytest.mark.parametrize("strategy", PATHS)
async def test_one_trace_leads_from_the_request_to_the_acknowledgement(
    database_url: str, nats_url: str, tmp_path: Path, strategy: str
) -> None:
    async with open_system(database_url, nats_url, tmp_path) as system:
        await system.warm_pool(strategy)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(system.telling.processors("client")[0])

        with provider.get_tracer("test").start_as_current_span("ask for a workspace") as root:
            created = await system.alice.create_workspace(ORGANIZATION, TEMPLATE, preset="p")

        last = await system.alice.wait_for_workspace(created.workspace.id)
        assert created.outcome == claim_pb2.CREATION_OUTCOME_HIT
        assert last.claim.state == claim_pb2.CLAIM_STATE_ACKNOWLEDGED
    # Everything is closed, so every span has ended.
    spans = system.telling.of(root.get_span_context().trace_id)
    by_id = {span.context.span_id: span for span in spans}

    orphans = [span.name for span in spans if span.parent_id not in by_id]
    assert orphans == [("client", "ask for a workspace")]
    acknowledgement = [span for span in spans if span.name == REPORT][-1]
    assert path_to(acknowledgement, by_id) == [("client", "ask for a workspace"), *PATHS[strategy]]
    assert not [span.name for span in spans if span.span.status.status_code is StatusCode.ERROR]
    # Who only heard of it has its part too, each under what it heard of.
    assert parents_of(("reconciler", "process claimed"), spans, by_id) == {CREATE}
    assert parents_of(("agent-gateway", "AgentGatewayService/GetManifest"), spans, by_id) == {DUE}


def path_to(span: Span, by_id: Mapping[int, Span]) -> list[tuple[str, str]]:
    """The spans from the root to this one."""
    path = [span.name]
    while span.parent_id is not None:
        span = by_id[span.parent_id]
        path.insert(0, span.name)
    return path


def parents_of(name: tuple[str, str], spans: Sequence[Span], by_id: Mapping[int, Span]) -> set[tuple[str, str]]:
    return {by_id[span.parent_id].name for span in spans if span.name == name and span.parent_id is not None}
