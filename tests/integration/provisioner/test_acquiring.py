from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import grpc
import grpc.aio
import pytest

from prebuilds.domain.agents import AgentToken, mint_agent_token
from prebuilds.domain.builds import Transition
from prebuilds.domain.ids import AgentId, WorkspaceId
from prebuilds.provisioner.app import open_app
from prebuilds.store.database import Database
from prebuilds.store.sql import SqlFolder
from prebuilds.v1 import template_pb2, workspace_pb2
from tests.support.provisioning import (
    AGENT_KEYS,
    ARCHIVE,
    GATEWAY,
    HOST,
    DaemonClient,
    Provisioner,
    Tenant,
    fetch,
    job_status,
    make_tenant,
    provisioner_settings,
    reason_of,
)


async def test_a_persons_job_is_served_before_the_systems(daemon: DaemonClient, tenant: Tenant) -> None:
    await tenant.fill(2)
    persons = await tenant.build_for_person()

    first, second = await daemon.acquire_some(), await daemon.acquire_some()

    assert first.build_id == str(persons.build_id)
    assert second.is_prebuild


async def test_among_equals_the_oldest_is_served_first(daemon: DaemonClient, tenant: Tenant) -> None:
    queued = [(await tenant.fill())[0] for _ in range(3)]

    served = [await daemon.acquire_some() for _ in queued]

    assert [job.lease.job_id for job in served] == [str(each.job_id) for each in queued]


async def test_many_daemons_get_each_job_exactly_once(provisioner: Provisioner, tenant: Tenant) -> None:
    queued = await tenant.fill(40)
    token = await tenant.make_key(host=HOST)
    daemons = [await provisioner.daemon(token, name=f"daemon-{number}") for number in range(8)]

    async def drain(daemon: DaemonClient) -> list[str]:
        served: list[str] = []
        while (job := await daemon.acquire()) is not None:
            served.append(job.lease.job_id)
        return served

    served = await asyncio.gather(*map(drain, daemons))

    assert Counter(job for each in served for job in each) == Counter(str(each.job_id) for each in queued)


async def test_a_job_comes_with_all_that_is_needed(daemon: DaemonClient, tenant: Tenant) -> None:
    (queued,) = await tenant.fill()

    job = await daemon.acquire_some()

    assert job.lease.attempt == 1
    assert job.lease.duration.seconds == 30
    assert job.transition == workspace_pb2.TRANSITION_START
    assert job.reason == workspace_pb2.BUILD_REASON_PREBUILD
    assert job.backend == template_pb2.BACKEND_KIND_PROCESS
    assert job.workspace_id == str(queued.workspace_id)
    assert job.workspace_name.startswith("prebuild-")
    assert job.owner_name == "prebuilds"
    assert (job.template_name, job.version_name, job.organization_name) == ("python-dev", "v1", "default")
    assert dict(job.parameters) == {"size": "small"}
    assert job.is_prebuild
    assert not job.is_prebuild_claim
    assert job.source_archive == ARCHIVE
    assert job.gateway_address == GATEWAY
    assert job.provisioner_state == b""


async def test_agents_get_tokens_of_the_newest_key_and_their_epoch(
    daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    await tenant.fill()

    (agent,) = (await daemon.acquire_some()).agents

    key_id, epoch = await fetch(
        database, b"SELECT token_key_id, token_epoch FROM agents WHERE id = %(id)s", id=agent.id
    )
    assert key_id == "k1"
    assert agent.token == mint_agent_token(AGENT_KEYS, "k1", AgentId(UUID(agent.id)), epoch)
    token = AgentToken.parse(agent.token)
    assert token is not None
    assert token.verify(AGENT_KEYS, key_id, epoch)


async def test_a_key_without_a_jobs_tags_does_not_get_it(provisioner: Provisioner, tenant: Tenant) -> None:
    await tenant.build_for_person()
    daemon = await provisioner.daemon(await tenant.make_key(host=HOST))
    job = await daemon.acquire_some()
    await daemon.complete(job)
    await tenant.build_again(WorkspaceId(UUID(job.workspace_id)), Transition.STOP)
    elsewhere = await provisioner.daemon(await tenant.make_key(host="host-2"), host_id="host-2")
    more = await provisioner.daemon(await tenant.make_key(host=HOST, gpu="yes"))

    assert await elsewhere.acquire() is None
    stop = await more.acquire_some()
    assert stop.transition == workspace_pb2.TRANSITION_STOP
    assert stop.host_id == HOST


async def test_another_backend_is_not_served(provisioner: Provisioner, tenant: Tenant) -> None:
    await tenant.fill()
    daemon = await provisioner.daemon(await tenant.make_key(host=HOST), backends=(template_pb2.BACKEND_KIND_TERRAFORM,))

    assert await daemon.acquire() is None


async def test_another_organisations_key_sees_nothing(
    provisioner: Provisioner, daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    other = await make_tenant(database, "other")
    await tenant.fill()
    stranger = await provisioner.daemon(await other.make_key(host=HOST))

    assert await stranger.acquire() is None
    job = await daemon.acquire_some()
    for call in (stranger.update(job), stranger.complete(job), stranger.fail(job, canceled=True)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert await job_status(database, job.lease.job_id) == "running"


async def test_a_key_of_all_organisations_serves_them_all(
    provisioner: Provisioner, tenant: Tenant, database: Database
) -> None:
    other = await make_tenant(database, "other")
    await tenant.fill()
    await other.fill()
    daemon = await provisioner.daemon(await tenant.make_key(everywhere=True, host=HOST))

    served = {(await daemon.acquire_some()).organization_name for _ in range(2)}

    assert served == {"default", "other"}


async def test_a_daemon_must_agree_with_its_keys_host(provisioner: Provisioner, tenant: Tenant) -> None:
    daemon = await provisioner.daemon(await tenant.make_key(host="host-2"))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.acquire()

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_wrong_with_a_request_is_told_at_once(provisioner: Provisioner, tenant: Tenant) -> None:
    daemon = await provisioner.daemon(await tenant.make_key(host=HOST), name="", host_id="no host!", backends=())

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.acquire(timedelta(days=1))

    for field in ("daemon.name", "daemon.host_id", "daemon.backends", "max_wait"):
        assert field in (refused.value.details() or "")


async def test_a_long_poll_is_woken_by_a_new_job(daemon: DaemonClient, tenant: Tenant) -> None:
    waiting = asyncio.ensure_future(daemon.acquire(timedelta(seconds=30)))
    await asyncio.sleep(0)

    await tenant.fill()

    assert await waiting is not None


async def test_a_long_poll_without_a_job_answers_empty(daemon: DaemonClient) -> None:
    assert await daemon.acquire(timedelta(milliseconds=10)) is None


async def test_a_draining_server_sends_long_polls_elsewhere(database_url: str, nats_url: str, tenant: Tenant) -> None:
    async with AsyncExitStack() as clients:
        async with open_app(provisioner_settings(database_url, nats_url)) as app:
            daemon = await Provisioner(app, clients).daemon(await tenant.make_key(host=HOST))
            assert await daemon.acquire() is None
            waiting = asyncio.ensure_future(daemon.acquire(timedelta(seconds=30)))
            # Sent over the same connection after it, so served after it has begun.
            assert await daemon.acquire() is None
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await waiting
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert reason_of(refused.value) == "DRAINING"


async def test_tokens_and_keys_are_never_logged(
    daemon: DaemonClient, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await tenant.fill()

    job = await daemon.acquire_some()
    await daemon.complete(job)

    assert "pba_" not in caplog.text
    assert "pbd_" not in caplog.text


async def test_acquiring_walks_the_queue_by_its_index(tenant: Tenant, database: Database) -> None:
    await tenant.fill(300)
    async with database.transaction("explain") as tx:
        await tx.run(b"ANALYZE jobs")
    statement = SqlFolder("prebuilds.store.jobs")["acquire"]
    async with database.transaction("explain") as tx:
        cursor = await tx.run(
            b"EXPLAIN (ANALYZE, COSTS OFF) " + statement,
            {
                "backends": ["process"],
                "tags": '{"host": "host-1"}',
                "organization_id": tenant.organization_id,
                "lease_id": UUID(int=1),
                "key_id": UUID(int=2),
                "daemon": "d",
                "lease_for": timedelta(seconds=30),
            },
        )
        plan = "\n".join(row[0] for row in await cursor.fetchall())

    assert "Index Scan using ix_jobs_queue" in plan
    assert "Seq Scan on jobs" not in plan
    assert "Sort" not in plan


async def test_a_lost_lease_has_a_reason(daemon: DaemonClient, tenant: Tenant, database: Database) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()
    job.lease.lease_id = str(UUID(int=7))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.complete(job)

    assert refused.value.code() == grpc.StatusCode.ABORTED
    assert reason_of(refused.value) == "LEASE_LOST"
    assert await job_status(database, job.lease.job_id) == "running"
