"""Reconcilers as they are shipped: programs of their own on one database, to be halted, killed and asked by gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prebuilds.sdk.keys import write_jwks
from tests.support.reconciling import Client, Reconcilers
from tests.support.waiting import eventually

PATIENCE: Final = 60
"""Seconds that a program may take to start, and to end."""


@dataclass
class Replica:
    """A running reconciler."""

    process: asyncio.subprocess.Process
    client: Client
    log: Path

    def said(self, event: str) -> Iterator[Mapping[str, Any]]:
        """What it has logged of this."""
        for line in self.log.read_text().splitlines():
            if line.startswith("{") and (entry := json.loads(line)).get("event") == event:
                yield entry

    def complaints(self) -> list[Mapping[str, Any]]:
        """What it has logged as errors."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [entry for entry in lines if entry.get("level") in {"error", "critical"}]

    def halt(self) -> None:
        """Let it do nothing more; its connections stay as they are."""
        self.process.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Ask it to end."""
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.process.wait(), PATIENCE) == 0


@asynccontextmanager
async def open_replica(reconcilers: Reconcilers, name: str, **given: str) -> AsyncGenerator[Replica]:
    """Start one and wait for the end of its first pass; settings are `given` by field.

    The tick is an hour away. It is gone afterwards, and its files lie in a folder of this name.
    """
    folder = reconcilers.folder / name
    folder.mkdir()
    keys, addresses, log = folder / "people.json", folder / "addresses.json", folder / "log"
    write_jwks(keys, reconcilers.key)
    settings = {
        "database_url": reconcilers.database_url,
        "nats_url": reconcilers.nats_url,
        "token_keys_file": str(keys),
        "token_issuer_authoritative": "true",
        "addresses_file": str(addresses),
        "reconciliation_interval": "1h",
        "metrics_address": "",
        "migrate": "false",
        **given,
    }
    environment = {f"PREBUILDS_{field.upper()}": value for field, value in settings.items()}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "prebuilds.reconciler",
            env={"PATH": os.environ["PATH"], **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        await eventually(lambda: addresses.exists() or process.returncode is not None, PATIENCE, what="it is ready")
        assert process.returncode is None, log.read_text()
        client = await reconcilers.client(json.loads(addresses.read_text())["grpc"])
        replica = Replica(process, client, log)
        await eventually(
            lambda: any(entry["loop"] == "tick" for entry in replica.said("loop ran")), PATIENCE, what="its first pass"
        )
        yield replica
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
