"""The program `prebuilds-reconciler`, alone against a Postgres and a NATS server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from tests.support.waiting import eventually


@pytest.mark.parametrize("nats", ["there", "away"])
async def test_the_program_serves_and_ends_well_when_asked_to(
    empty_database_url: str, nats_url: str, tmp_path: Path, nats: str
) -> None:
    addresses = tmp_path / "addresses.json"
    environment = {
        "PATH": os.environ["PATH"],
        "PREBUILDS_DATABASE_URL": empty_database_url,
        "PREBUILDS_NATS_URL": nats_url if nats == "there" else "nats://127.0.0.1:1",
        "PREBUILDS_ADDRESSES_FILE": str(addresses),
        "PREBUILDS_LOG_FORMAT": "console",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "prebuilds.reconciler", env=environment)
    try:
        await eventually(addresses.exists, 30, what="the program is ready")
        told = json.loads(addresses.read_text(encoding="utf-8"))
        async with grpc.aio.insecure_channel(told["grpc"]) as channel:
            for service in ("TemplateService", "PoolService", "AdminService"):
                request = health_pb2.HealthCheckRequest(service=f"prebuilds.v1.{service}")
                check = channel.unary_unary(
                    "/grpc.health.v1.Health/Check",
                    request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                    response_deserializer=health_pb2.HealthCheckResponse.FromString,
                )
                answer = await check(request)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
