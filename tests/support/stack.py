"""The whole system as processes, as `make run` starts it: one stack for all end-to-end tests of a worker."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest_asyncio
import yaml
from psycopg.rows import dict_row
from rich.console import Console

from prebuilds.domain.principals import Role
from prebuilds.embedded.keys import ORGANIZATION
from prebuilds.embedded.stack import DATABASE, Stack, open_stack
from prebuilds.embedded.state import StateFolder
from prebuilds.embedded.steps import Steps
from prebuilds.embedded.tour import prepare
from prebuilds.sdk.client import PrebuildsClient, open_client
from prebuilds.v1 import pool_service_pb2, workspace_pb2, workspace_service_pb2
from tests.support.waiting import eventually

PATIENCE = 60


@dataclass(slots=True)
class RunningSystem:
    """A stack, with clients and eyes for what agents do."""

    stack: Stack
    admin: PrebuildsClient
    alice: PrebuildsClient
    scratch: Path

    async def warm_pool(self, *, startup: str = "exit 0", strategy: str = "provision", instances: int = 1) -> str:
        """Push a template of a name of its own with this startup script, and wait until its pool is full."""
        name = f"t-{uuid4().hex[:8]}"
        folder = self.scratch / name
        folder.mkdir()
        manifest = {
            "name": name,
            "backend": "process",
            "claim_strategy": strategy,
            "presets": [{"name": "p", "default": True, "prebuilds": {"instances": instances}}],
            "process": {"startup": "./startup.sh"},
        }
        (folder / "template.yaml").write_text(yaml.safe_dump(manifest))
        (folder / "startup.sh").write_text(f"#!/bin/sh\n{startup}\n")
        (folder / "startup.sh").chmod(0o755)
        await self.admin.push_template(folder, ORGANIZATION, activate=True)

        async def is_full() -> bool:
            request = pool_service_pb2.ListPoolsRequest(organization=ORGANIZATION)
            pools = (await self.admin.call(self.admin.pools.ListPools, request)).pools
            return any(pool.template_name == name and pool.counts.eligible >= instances for pool in pools)

        await eventually(is_full, PATIENCE, what=f"the pool of {name} is full")
        return name

    async def workspace(self, workspace_id: str) -> workspace_pb2.Workspace:
        """Read a workspace as its owner."""
        request = workspace_service_pb2.GetWorkspaceRequest(id=workspace_id)
        return (await self.alice.call(self.alice.workspaces.GetWorkspace, request)).workspace

    def agent_says(self, workspace_id: str) -> Mapping[str, Any]:
        """What the workspace's agent last wrote of itself."""
        (file,) = (self.stack.state.workspaces / "workspaces" / workspace_id).rglob("agent.json")
        return cast("Mapping[str, Any]", json.loads(file.read_text()))

    def folder_of(self, workspace_id: str) -> Path:
        """The folder that the workspace's startup script runs in."""
        (file,) = (self.stack.state.workspaces / "workspaces" / workspace_id).rglob("startup.sh")
        return file.parent

    def entries(self, workspace_id: str) -> list[str]:
        """The owners for whom the startup script ran, in order; it writes them to `entries`."""
        return (self.folder_of(workspace_id) / "entries").read_text().split()

    def rows(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        """Ask the database."""
        url = self.stack.postgres.url(DATABASE)
        with psycopg.connect(url, autocommit=True) as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), parameters).fetchall()

    def claim_state(self, workspace_id: str) -> str:
        """The state of the workspace's only claim."""
        (claim,) = self.rows("SELECT state FROM claims WHERE workspace_id = %(id)s", id=workspace_id)
        return str(claim["state"])

    def kill(self, program: str) -> None:
        """End a program at once, as a crash would; its supervisor starts it again."""
        os.kill(self._pid(program), signal.SIGKILL)

    @contextmanager
    def halted(self, program: str) -> Generator[None]:
        """Halt a program within the block: it does nothing, and nobody notices."""
        pid = self._pid(program)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _pid(self, program: str) -> int:
        pid = self.stack.supervisors[program].pid
        assert pid is not None
        return pid


@pytest_asyncio.fixture(scope="session")
async def system() -> AsyncIterator[RunningSystem]:
    """The worker's system; nothing of it is left when the worker ends."""
    folder = Path(tempfile.mkdtemp(prefix="prebuilds-e2e-", dir="/tmp"))
    folder.chmod(0o755)
    scratch = Path(tempfile.mkdtemp(prefix="prebuilds-e2e-templates-"))
    steps = Steps(Console(file=io.StringIO()))
    try:
        async with AsyncExitStack() as opened:
            stack = await opened.enter_async_context(open_stack(StateFolder(folder), steps))
            await prepare(stack)

            async def client(person: str, role: Role) -> PrebuildsClient:
                token = stack.keys.issue(person, roles=(role,))
                return await opened.enter_async_context(
                    open_client(reconciler=stack.grpc["reconciler"], claims=stack.grpc["claims"], token=token)
                )

            yield RunningSystem(stack, await client("admin", Role.OWNER), await client("alice", Role.MEMBER), scratch)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)
