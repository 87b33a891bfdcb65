"""The daemon against the real service, as it runs: a stand-in for the agent first, then the agent itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest_asyncio
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id
from pydantic import SecretStr

from prebuilds.domain.agents import AgentState
from prebuilds.domain.builds import Transition
from prebuilds.domain.ids import WorkspaceId
from prebuilds.provisioner_daemon.app import open_app
from prebuilds.provisioner_daemon.backends.process.agents import kill_all_of, processes_of
from prebuilds.provisioner_daemon.settings import DaemonSettings
from prebuilds.store.database import Database, open_database
from prebuilds.v1.agent_pb2 import Manifest
from tests.support.provisioning import (
    HOST,
    Provisioner,
    Tenant,
    fetch,
    job_status,
    open_provisioner,
    provisioner_settings,
)
from tests.support.scripted_gateway import ScriptedGateway, serve_gateway
from tests.support.waiting import eventually

SLEEPER = "/bin/sh -c 'exec sleep 1000'"


@dataclass(frozen=True)
class Host:
    """A place for workspaces, and daemons of it."""

    root: Path
    key: str
    database: Database
    tenant: Tenant

    def settings(self, provisioner: Provisioner, **changed: Any) -> DaemonSettings:
        given: dict[str, Any] = {
            "provisioner_address": provisioner.app.grpc,
            "provisioner_key": SecretStr(self.key),
            "host_id": HOST,
            "state_root": self.root,
            "metrics_address": "",
            "agent_stop_grace": timedelta(seconds=5),
        }
        return DaemonSettings(**(given | changed))

    @asynccontextmanager
    async def daemon(self, provisioner: Provisioner, **changed: Any) -> AsyncGenerator[None]:
        async with open_app(self.settings(provisioner, **changed)):
            yield

    def folder(self, workspace_id: UUID) -> Path:
        return self.root / "workspaces" / str(workspace_id)

    async def ended(self, job_id: UUID, status: str = "succeeded") -> None:
        async def is_over() -> bool:
            return await job_status(self.database, job_id) not in {"pending", "running"}

        await eventually(is_over, 60)
        assert await job_status(self.database, job_id) == status


@pytest_asyncio.fixture
async def host(tmp_path: Path, tenant: Tenant, database: Database) -> AsyncIterator[Host]:
    root = (tmp_path / "state").resolve()
    yield Host(root, await tenant.make_key(host=HOST), database, tenant)
    # Only a test that failed leaves anything.
    kill_all_of(root)


async def test_jobs_are_built_to_their_end(provisioner: Provisioner, host: Host) -> None:
    (queued,) = await host.tenant.fill()
    async with host.daemon(provisioner, agent_command=SLEEPER):
        await host.ended(queued.job_id)
        assert list(processes_of(host.folder(queued.workspace_id)))
        state, built_on = await fetch(
            host.database, b"SELECT p.state, b.host FROM prebuilds p JOIN builds b USING (workspace_id)"
        )
        assert (state, built_on) == ("running", HOST)
        (lines,) = await fetch(host.database, b"SELECT array_agg(line ORDER BY id) FROM job_logs")
        assert lines == ["unpacked version v1", "started agent main"]

        delete = await host.tenant.build_again(queued.workspace_id, Transition.DELETE)
        await host.ended(delete.job_id)

    assert not list(processes_of(host.root))
    assert not list((host.root / "workspaces").iterdir())


async def test_a_daemon_that_stops_leaves_agents_running_and_another_takes_over(
    provisioner: Provisioner, host: Host
) -> None:
    root = Path(__file__).parents[3]
    (queued,) = await host.tenant.fill()
    environment = {
        "PATH": os.environ["PATH"],
        "PREBUILDS_PROVISIONER_ADDRESS": provisioner.app.grpc,
        "PREBUILDS_PROVISIONER_KEY": host.key,
        "PREBUILDS_HOST_ID": HOST,
        "PREBUILDS_STATE_ROOT": str(host.root),
        "PREBUILDS_AGENT_COMMAND": SLEEPER,
        "PREBUILDS_METRICS_ADDRESS": "",
    }
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "prebuilds.provisioner_daemon"),
        env=environment,
        cwd=root,
        start_new_session=True,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await host.ended(queued.job_id)
    finally:
        program.send_signal(signal.SIGTERM)
        _, log = await program.communicate()
    assert program.returncode == 0, log.decode()
    assert b"pba_" not in log
    assert b"pbd_" not in log
    before = {process.pid for process in processes_of(host.folder(queued.workspace_id))}
    assert before

    stop = await host.tenant.build_again(queued.workspace_id, Transition.STOP)
    async with host.daemon(provisioner, agent_command=SLEEPER):
        await host.ended(stop.job_id)

    assert not list(processes_of(host.root))


async def test_a_second_attempt_takes_up_the_work_of_a_daemon_that_died(
    database_url: str, nats_url: str, host: Host
) -> None:
    settings = provisioner_settings(
        database_url, nats_url, lease_duration=timedelta(seconds=1), sweep_interval=timedelta(milliseconds=100)
    )
    async with open_provisioner(settings) as provisioner:
        (queued,) = await host.tenant.fill()
        died = await provisioner.daemon(host.key)
        assert (await died.acquire_some()).lease.attempt == 1

        async with host.daemon(provisioner, agent_command=SLEEPER):
            await host.ended(queued.job_id)
            delete = await host.tenant.build_again(queued.workspace_id, Transition.DELETE)
            await host.ended(delete.job_id)

    assert await fetch(host.database, b"SELECT attempt FROM jobs WHERE id = %(id)s", id=queued.job_id) == (2,)


async def test_a_real_agent_starts_and_begins_again_for_its_claimant(
    database_url: str, nats_url: str, host: Host
) -> None:
    async with serve_gateway(ScriptedGateway()) as gateway:
        gateway.manifest = Manifest(owner_name="prebuilds", is_prebuild=True, agent_name="main")
        settings = provisioner_settings(database_url, nats_url, gateway_url=f"127.0.0.1:{gateway.port}")
        async with open_provisioner(settings) as provisioner, host.daemon(provisioner):
            (queued,) = await host.tenant.fill()
            await host.ended(queued.job_id)
            await gateway.reported(1, AgentState.READY)
            (token,) = host.folder(queued.workspace_id).glob("agents/*/token")
            assert (await gateway.stream(1)).token == f"Bearer {token.read_text()}"
            before = {process.pid for process in processes_of(host.folder(queued.workspace_id))}
            await host.tenant.make_eligible(queued.workspace_id)

            claimed = await host.tenant.claim()
            await eventually(lambda: is_done(host, claimed.workspace_id), 60)
            gateway.hand_over("alice")
            (await gateway.stream(1)).send(1, "alice")
            await gateway.reported(2, AgentState.READY)

            assert {process.pid for process in processes_of(host.folder(queued.workspace_id))} == before
            delete = await host.tenant.build_again(queued.workspace_id, Transition.DELETE)
            await host.ended(delete.job_id)
    assert not list(processes_of(host.root))
    assert not list((host.root / "workspaces").iterdir())


async def is_done(host: Host, workspace_id: WorkspaceId) -> bool:
    (state,) = await fetch(host.database, b"SELECT state FROM claims WHERE workspace_id = %(id)s", id=workspace_id)
    return state == "handing_over"


async def test_the_trace_in_which_a_job_was_queued_goes_on_in_the_daemon(
    provisioner: Provisioner, host: Host, database_url: str
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with open_database(
        database_url, min_size=1, trace_context=lambda: f"00-{trace_id}-b7ad6b7169203331-01"
    ) as traced:
        (queued,) = await replace(host.tenant, database=traced).fill()
    spans = InMemorySpanExporter()

    async with open_app(
        host.settings(provisioner, agent_command=SLEEPER), span_processors=[SimpleSpanProcessor(spans)]
    ):
        await host.ended(queued.job_id)
        delete = await host.tenant.build_again(queued.workspace_id, Transition.DELETE)
        await host.ended(delete.job_id)

    first = spans.get_finished_spans()[0]
    assert first.name == "build workspace"
    assert first.context is not None
    assert format_trace_id(first.context.trace_id) == trace_id
