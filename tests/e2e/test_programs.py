"""The four services and the daemon as programs, each started alone as an operator would against Postgres and NATS."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.parser import text_string_to_metric_families

from prebuilds.agent_gateway.rpc.gateway import AgentGateway
from prebuilds.agent_gateway.settings import GatewaySettings
from prebuilds.chassis.settings import ProcessSettings
from prebuilds.claims.rpc.claims import Claims
from prebuilds.claims.rpc.workspaces import Workspaces
from prebuilds.claims.settings import ClaimsSettings
from prebuilds.embedded.nats import EmbeddedNats
from prebuilds.provisioner.rpc.provisioner_service import ProvisionerServicer
from prebuilds.provisioner.settings import ProvisionerSettings
from prebuilds.provisioner_daemon.settings import DaemonSettings
from prebuilds.reconciler.rpc.admin import AdminServicer
from prebuilds.reconciler.rpc.pools import PoolServicer
from prebuilds.reconciler.rpc.templates import TemplateServicer
from prebuilds.reconciler.settings import ReconcilerSettings
from prebuilds.sdk.errors import PrebuildsError, error_of
from prebuilds.sdk.keys import read_or_create_key
from prebuilds.sdk.tokens import issue_token
from prebuilds.v1 import (
    admin_service_pb2,
    agent_gateway_service_pb2,
    claim_service_pb2,
    notification_service_pb2,
    pool_service_pb2,
    provisioner_service_pb2,
    template_service_pb2,
    workspace_service_pb2,
)
from prebuilds.v1.notification_service_pb2_grpc import NotificationServiceServicer
from tests.support.postgres import TestServer
from tests.support.waiting import eventually

PATIENCE = 60
SECRET = "hunter2"
NOBODY = "127.0.0.1:1"
NATS_AWAY = f"nats://{NOBODY}"


@dataclass(frozen=True)
class Served:
    """A service of the API, and what serves it."""

    api: ServiceDescriptor
    servicer: type

    def unbuilt(self) -> Iterator[str]:
        """Unary methods that the servicer leaves to the generated base."""
        for method in self.api.methods:
            given = getattr(self.servicer, method.name)
            if given.__qualname__.startswith(f"{self.api.name}Servicer.") and not method.server_streaming:
                yield method.name


@dataclass(frozen=True)
class Program:
    """A program, as its operator knows it."""

    name: str
    settings: type[ProcessSettings]
    serves: Sequence[Served] = ()

    @property
    def command(self) -> str:
        return str(Path(sys.executable).with_name(f"prebuilds-{self.name}"))

    @property
    def services(self) -> set[str]:
        return {served.api.full_name for served in self.serves}

    def environment(self, folder: Path, **given: str) -> dict[str, str]:
        """What it cannot do without, and no more; `given` by field, where it has that field."""
        everything = {
            "nats_url": NATS_AWAY,
            "token_keys_file": str(folder / "people.jwks"),
            "token_issuer_authoritative": "true",
            "agent_token_keys": '{"k1": "a key of agents\' tokens"}',
            "gateway_url": NOBODY,
            "provisioner_address": NOBODY,
            "provisioner_key": "pbd_no_such_key",
            "state_root": str(folder / "state"),
            **given,
        }
        known = {name: value for name, value in everything.items() if name in self.settings.model_fields}
        return {"PATH": os.environ["PATH"], **{f"PREBUILDS_{name.upper()}": value for name, value in known.items()}}

    def __str__(self) -> str:
        return self.name


def api_of(module: Any) -> ServiceDescriptor:
    (service,) = module.DESCRIPTOR.services_by_name.values()
    return service


PROGRAMS = [
    Program(
        "reconciler",
        ReconcilerSettings,
        [
            Served(api_of(template_service_pb2), TemplateServicer),
            Served(api_of(pool_service_pb2), PoolServicer),
            Served(api_of(admin_service_pb2), AdminServicer),
        ],
    ),
    Program(
        "claims",
        ClaimsSettings,
        [
            Served(api_of(workspace_service_pb2), Workspaces),
            Served(api_of(claim_service_pb2), Claims),
            Served(api_of(notification_service_pb2), NotificationServiceServicer),
        ],
    ),
    Program("agent-gateway", GatewaySettings, [Served(api_of(agent_gateway_service_pb2), AgentGateway)]),
    Program("provisioner", ProvisionerSettings, [Served(api_of(provisioner_service_pb2), ProvisionerServicer)]),
    Program("provisioner-daemon", DaemonSettings),
]


SERVERS = [program for program in PROGRAMS if program.serves]
each_program = pytest.mark.parametrize("program", PROGRAMS, ids=str)
each_server = pytest.mark.parametrize("program", SERVERS, ids=str)
each_running_program = pytest.mark.parametrize("running", PROGRAMS, ids=str, indirect=True, scope="module")
each_running_server = pytest.mark.parametrize("running", SERVERS, ids=str, indirect=True, scope="module")


@dataclass
class Running:
    """A program that has told its addresses."""

    program: Program
    process: asyncio.subprocess.Process
    addresses: Mapping[str, str]
    folder: Path

    def lines(self) -> list[str]:
        """What it has said so far."""
        return (self.folder / "log").read_text().splitlines()

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(self.addresses["grpc"]) as opened:
            yield opened


@asynccontextmanager
async def start(program: Program, folder: Path, **given: str) -> AsyncGenerator[Running]:
    """Start it and wait until it is ready; it is gone afterwards."""
    told = folder / "addresses.json"
    read_or_create_key(folder / "people.pem", folder / "people.jwks")
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program.command,
            env=program.environment(folder, addresses_file=str(told), **given),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        await eventually(lambda: told.exists() or process.returncode is not None, PATIENCE, what="it is ready")
        assert process.returncode is None, (folder / "log").read_text()
        yield Running(program, process, json.loads(told.read_text()), folder)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(program: Program, *argv: str, environment: Mapping[str, str]) -> tuple[int | None, str, str]:
    """Run it to its end; exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        program.command, *argv, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode(), errors.decode()


@pytest.fixture(scope="module")
def shared_database_url(postgres: TestServer) -> Iterator[str]:
    """Empty, until the first program that is started brings it to its schema."""
    url = postgres.create_database("template1")
    yield url
    postgres.drop_database(url)


@pytest_asyncio.fixture(scope="module")
async def running(
    request: pytest.FixtureRequest,
    shared_database_url: str,
    nats_server: EmbeddedNats,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    """Each program once, for all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp(str(request.param))
    async with start(request.param, folder, database_url=shared_database_url, nats_url=nats_server.url) as started:
        yield started


@each_program
async def test_help_lists_every_setting(program: Program) -> None:
    code, output, errors = await run(program, "--help", environment={"PATH": os.environ["PATH"]})

    assert (code, errors) == (0, "")
    missing = [name for name in program.settings.model_fields if f"PREBUILDS_{name.upper()}" not in output]
    assert not missing


@each_program
async def test_bad_settings_end_it_with_2_and_a_line_for_each(program: Program, tmp_path: Path) -> None:
    required = "provisioner_key" if program.name == "provisioner-daemon" else "nats_url"
    # A bare slash in the password makes it another URL, or none; nothing of it may be seen even so.
    environment = program.environment(tmp_path, database_url=f"postgresql://u:{SECRET}/{SECRET}@db/x")
    del environment[f"PREBUILDS_{required.upper()}"]

    code, output, errors = await run(program, "--metrics-address", "nowhere", environment=environment)

    wrong = {required, "metrics_address"} | ({"database_url"} & set(program.settings.model_fields))
    lines = errors.splitlines()
    assert (code, output) == (2, "")
    assert {line.split(" (")[1].split(")")[0] for line in lines} == {f"PREBUILDS_{name.upper()}" for name in wrong}
    assert len(lines) == len(wrong)
    assert all(line.startswith(f"prebuilds-{program.name}: --") for line in lines)
    assert SECRET not in errors


@each_server
async def test_a_database_that_is_not_there_ends_it_with_1_and_a_clear_line(program: Program, tmp_path: Path) -> None:
    environment = program.environment(tmp_path, database_url=f"postgresql://u:{SECRET}@{NOBODY}/prebuilds")

    code, _, errors = await run(program, environment=environment)

    last = json.loads(errors.splitlines()[-1])
    assert code == 1
    assert (last["event"], last["level"]) == ("process failed", "error")
    assert (last["reason"], last["message"]) == ("DEPENDENCY_UNAVAILABLE", "the database is not available")
    assert "Connection refused" in last["cause"]
    assert SECRET not in errors
    assert "Traceback" not in errors


@each_running_program
async def test_the_metrics_endpoint_answers(running: Running) -> None:
    url = f"http://{running.addresses['metrics']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    names = {family.name for family in text_string_to_metric_families(text) if family.samples}
    # What OpenTelemetry itself says of the process has no prefix.
    own = names - {"target_info"}
    assert own
    assert all(name.startswith("prebuilds_") for name in own)


@each_running_program
async def test_logs_are_json_lines_with_the_programs_name(running: Running) -> None:
    # Its addresses are told just before.
    await eventually(lambda: any('"event": "ready"' in line for line in running.lines()))
    said = [json.loads(line) for line in running.lines()]

    assert {line["service"] for line in said} == {running.program.name}
    assert all({"event", "level", "timestamp"} <= line.keys() for line in said)


@each_running_server
async def test_health_is_told_for_each_service_and_for_all(running: Running) -> None:
    async with running.channel() as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in {"", *running.program.services}:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


@each_running_server
async def test_reflection_lists_its_services(running: Running) -> None:
    def listed() -> set[str]:
        with grpc.insecure_channel(running.addresses["grpc"]) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    services = await asyncio.to_thread(listed)
    assert {name for name in services if name.startswith("prebuilds.")} == running.program.services
    assert "grpc.health.v1.Health" in services


@each_running_server
async def test_what_is_not_built_yet_says_so(running: Running) -> None:
    async with running.channel() as channel:
        for service in running.program.serves:
            # One of each service that has any is enough: the answer is the chassis's.
            for name in islice(service.unbuilt(), 1):
                error = await refusal_of(channel, service.api, name, operators_token(running.folder))
                assert (error.code, error.reason_name) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_BUILT"), name


async def refusal_of(channel: grpc.aio.Channel, api: ServiceDescriptor, name: str, token: str) -> PrebuildsError:
    """Call a method with an empty request, which must be refused."""
    method = api.methods_by_name[name]
    call = channel.unary_unary(
        f"/{api.full_name}/{name}",
        request_serializer=GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(GetMessageClass(method.input_type)(), metadata=(("authorization", f"Bearer {token}"),))
    return error_of(refused.value)


def operators_token(folder: Path) -> str:
    key = read_or_create_key(folder / "people.pem", folder / "people.jwks")
    return issue_token(
        key, issuer="prebuilds", audience="prebuilds", subject="root", operator=True, lifetime=timedelta(hours=1)
    )


@each_program
async def test_it_starts_with_nats_away_and_drains_when_asked_to_stop(
    program: Program, shared_database_url: str, tmp_path: Path
) -> None:
    async with start(program, tmp_path, database_url=shared_database_url, nats_url=NATS_AWAY) as started:
        if program.serves:
            async with started.channel() as channel:
                health: Any = health_pb2_grpc.HealthStub(channel)
                watch = health.Watch(health_pb2.HealthCheckRequest())
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                started.process.send_signal(signal.SIGTERM)
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        else:
            started.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(started.process.wait(), PATIENCE) == 0
        said = [json.loads(line)["event"] for line in started.lines()]

    assert said.index("ready") < said.index("asked to stop") < said.index("draining")
    assert said[-1] == "stopped"
