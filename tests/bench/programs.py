"""Reconcilers as they are shipped: the program, a process of its own, with logs, metrics and NATS, asked by gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc.aio

from prebuilds.sdk.keys import SigningKey, write_jwks
from prebuilds.sdk.tokens import issue_token
from prebuilds.v1 import pool_pb2, pool_service_pb2
from prebuilds.v1.pool_service_pb2_grpc import PoolServiceStub
from tests.bench.servers import Servers
from tests.support.waiting import eventually

START_TIMEOUT: Final = 60
"""Seconds; the first pass over everything is in it."""
STOP_TIMEOUT: Final = 20
"""Seconds."""


@dataclass(slots=True)
class Program:
    """A running reconciler."""

    pools: PoolServiceStub
    token: str
    log: Path

    async def reconcile(self) -> pool_pb2.PassStatistics:
        """Run one pass over everything."""
        metadata = (("authorization", f"Bearer {self.token}"),)
        answer = await self.pools.ReconcileNow(pool_service_pb2.ReconcileNowRequest(), metadata=metadata)
        return answer.statistics

    def said(self, event: str) -> Iterator[Mapping[str, Any]]:
        """What it has logged of this."""
        for line in self.log.read_text().splitlines():
            if line.startswith("{") and (entry := json.loads(line)).get("event") == event:
                yield entry

    def first_pass(self) -> float | None:
        """How long the first pass took, which a program begins when it starts; None before its end."""
        ticks = (float(entry["seconds"]) for entry in self.said("loop ran") if entry["loop"] == "tick")
        return next(ticks, None)

    def errors(self) -> list[Mapping[str, Any]]:
        """What it has complained about."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [entry for entry in lines if entry.get("level") in {"warning", "error", "critical"}]


@asynccontextmanager
async def open_programs(servers: Servers, database_url: str, number: int = 1) -> AsyncGenerator[list[Program]]:
    """Start so many, wait until each has had its first pass, and stop them at the end.

    Further passes are asked for: the tick is an hour away.
    """
    key = SigningKey.generate()
    keys_file = servers.folder / "people.json"
    write_jwks(keys_file, key)
    token = issue_token(key, issuer="prebuilds", audience="prebuilds", subject="bench", organizations={}, operator=True)
    async with AsyncExitStack() as stack:
        folders = [servers.folder / f"program-{os.urandom(4).hex()}" for _ in range(number)]
        for folder in folders:
            folder.mkdir()
        environments = [
            {
                **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
                "PREBUILDS_DATABASE_URL": database_url,
                "PREBUILDS_NATS_URL": servers.nats_url,
                "PREBUILDS_TOKEN_KEYS_FILE": str(keys_file),
                "PREBUILDS_TOKEN_ISSUER_AUTHORITATIVE": "true",
                "PREBUILDS_ADDRESSES_FILE": str(folder / "addresses.json"),
                "PREBUILDS_RECONCILIATION_INTERVAL": "1h",
            }
            for folder in folders
        ]
        await stack.enter_async_context(_processes(environments, [folder / "log" for folder in folders]))
        programs: list[Program] = []
        for folder in folders:
            log, addresses = folder / "log", folder / "addresses.json"
            await eventually(addresses.exists, START_TIMEOUT, what="a reconciler is ready")
            address = json.loads(addresses.read_text())["grpc"]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            program = Program(PoolServiceStub(channel), token, log)
            await eventually(
                lambda program=program: program.first_pass() is not None, START_TIMEOUT, what="its first pass"
            )
            programs.append(program)
        yield programs


@asynccontextmanager
async def _processes(environments: Sequence[Mapping[str, str]], logs: Sequence[Path]) -> AsyncGenerator[None]:
    processes: list[asyncio.subprocess.Process] = []
    try:
        for environment, log in zip(environments, logs, strict=True):
            with log.open("wb") as output:
                processes.append(
                    await asyncio.create_subprocess_exec(
                        sys.executable, "-m", "prebuilds.reconciler", env=environment, stdout=output, stderr=output
                    )
                )
        yield
    except AssertionError:
        for log in logs:
            print(log.read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
