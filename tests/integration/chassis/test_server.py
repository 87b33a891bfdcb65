"""A server's beginning and its end in good order."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from prebuilds.chassis.addresses import Addresses
from prebuilds.chassis.process import App, Process, serve
from prebuilds.chassis.server import UnguardedMethodsError
from prebuilds.chassis.settings import ProcessSettings
from prebuilds.chassis.status import reason_of
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.chassis.telemetry import open_telemetry
from tests.support.identity import Identity
from tests.support.tiny_service import NAME, OPEN, open_stage, status_of

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_method_without_a_row_keeps_the_server_from_starting(tmp_path: Path) -> None:
    lacking = {name: row for name, row in OPEN.items() if not name.endswith(("/Watch", "/Chat"))}
    with pytest.raises(UnguardedMethodsError) as refused:
        async with open_stage(Identity(tmp_path), access=lacking):
            pass
    assert refused.value.methods == (f"/{NAME}/Chat", f"/{NAME}/Watch")


async def test_health_is_told_per_service_without_credentials(tmp_path: Path) -> None:
    async with open_stage(Identity(tmp_path)) as stage:
        health: Any = health_pb2_grpc.HealthStub(stage.client.channel)
        for service in ("", NAME):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health.Check(health_pb2.HealthCheckRequest(service="no.such"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("reflection", [True, False])
async def test_reflection_can_be_turned_off(tmp_path: Path, reflection: bool) -> None:
    async with open_stage(Identity(tmp_path), settings={"reflection": reflection}) as stage:
        channel: Any = stage.client.channel
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo([reflection_pb2.ServerReflectionRequest(list_services="")])
        if not reflection:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        else:
            answer = await call.read()
            assert NAME in [service.name for service in answer.list_services_response.service]


async def test_a_drain_lets_calls_finish_ends_streams_and_tells_watchers(tmp_path: Path) -> None:
    async with open_stage(Identity(tmp_path), settings={"drain_grace": "60s"}) as stage:
        tiny = stage.tiny
        tiny.gate = asyncio.Event()
        health: Any = health_pb2_grpc.HealthStub(stage.client.channel)
        watching = health.Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watching.read()).status == SERVING
        stream = stage.client.watch("a")
        assert (await stream.read()).value == "a"
        await tiny.entered.wait()
        tiny.entered.clear()
        running = asyncio.ensure_future(stage.client.unary("x"))
        await tiny.entered.wait()

        draining = asyncio.ensure_future(stage.drain())
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await stream.read()
        status = status_of(ended.value)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert status is not None
        assert reason_of(status) == "DRAINING"
        assert stage.server.draining.is_set()
        assert (await watching.read()).status == NOT_SERVING
        assert not running.done()
        assert not draining.done()

        tiny.gate.set()
        assert (await running).value == "X"
        await draining
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stage.client.unary("x")
        assert late.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_outlasts_the_grace_is_cut_off(tmp_path: Path) -> None:
    async with open_stage(Identity(tmp_path), settings={"drain_grace": "0s"}) as stage:
        stage.tiny.gate = asyncio.Event()
        running = asyncio.ensure_future(stage.client.unary("x"))
        await stage.tiny.entered.wait()
        await stage.drain()
        await stage.tiny.left.wait()
        with pytest.raises(grpc.aio.AioRpcError):
            await running


async def test_two_servers_cannot_take_one_port(tmp_path: Path) -> None:
    async with open_stage(Identity(tmp_path)) as first:
        with pytest.raises(RuntimeError, match="bind"):
            async with open_stage(Identity(tmp_path), settings={"listen": first.server.address}):
                pass


async def test_the_metrics_of_several_apps_of_one_process_do_not_mix() -> None:
    def scrape(address: str | None) -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            return str(answer.read(), "utf-8")

    async with (
        open_telemetry("one", metrics_address="127.0.0.1:0") as one,
        open_telemetry("two", metrics_address="127.0.0.1:0") as two,
    ):
        one.meter.create_histogram("prebuilds_claim_duration_seconds", unit="s").record(0.003, {"template": "t"})
        two.meter.create_counter("prebuilds_claimed_total").add(2, {"template": "t"})
        first = await asyncio.to_thread(scrape, one.metrics_address)
        second = await asyncio.to_thread(scrape, two.metrics_address)
    assert 'prebuilds_claim_duration_seconds_bucket{le="0.001",template="t"} 0.0' in first
    assert 'prebuilds_claim_duration_seconds_bucket{le="0.005",template="t"} 1.0' in first
    assert "prebuilds_claimed_total" not in first
    assert 'prebuilds_claimed_total{template="t"} 2.0' in second


async def test_a_process_tells_where_it_listens_and_closes_its_app(tmp_path: Path) -> None:
    closed: list[str] = []

    @asynccontextmanager
    async def open_app(settings: ProcessSettings) -> AsyncGenerator[App]:
        async with BackgroundTasks() as tasks:
            yield App(tasks, Addresses(grpc="127.0.0.1:1", metrics="127.0.0.1:2"))
        closed.append("app")

    told = tmp_path / "addresses.json"
    async with BackgroundTasks() as tasks:
        process = Process(tasks)
        process.stop()
        await serve(process, open_app, ProcessSettings(addresses_file=told))
    assert told.read_text() == '{"grpc": "127.0.0.1:1", "metrics": "127.0.0.1:2"}\n'
    assert closed == ["app"]


async def test_a_process_whose_apps_task_fails_ends_with_that_failure(tmp_path: Path) -> None:
    async def boom() -> None:
        raise RuntimeError("boom")

    @asynccontextmanager
    async def open_app(settings: ProcessSettings) -> AsyncGenerator[App]:
        async with BackgroundTasks() as tasks:
            tasks.spawn("boom", boom())
            yield App(tasks)

    async with BackgroundTasks() as tasks:
        with pytest.raises(RuntimeError, match="boom"):
            await serve(Process(tasks), open_app, ProcessSettings())
