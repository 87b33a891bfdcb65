from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import grpc.aio
import pytest

from prebuilds.domain.ids import JobId
from prebuilds.provisioner import sweeps
from prebuilds.provisioner.rules.lost_jobs import Patience
from prebuilds.provisioner.sweeps import Swept, sweep
from prebuilds.store.database import Database
from prebuilds.store.jobs import finishing
from prebuilds.store.transactions import Transaction
from tests.support.provisioning import (
    HOST,
    DaemonClient,
    Tenant,
    fetch,
    job_status,
    open_provisioner,
    provisioner_settings,
    reason_of,
)

PATIENCE = Patience(cancel_grace=timedelta(minutes=1), longest_wait=timedelta(minutes=30), max_attempts=3)


async def age(database: Database, column: bytes) -> None:
    """Let an hour pass for every job."""
    async with database.transaction("age") as tx:
        await tx.run(b"UPDATE jobs SET " + column + b" = " + column + b" - interval '1 h'")  # pyright: ignore[reportArgumentType]


async def test_an_expired_lease_puts_the_job_back_three_times_at_most(
    database_url: str, nats_url: str, tenant: Tenant, database: Database
) -> None:
    settings = provisioner_settings(database_url, nats_url, sweep_interval=timedelta(minutes=1))
    async with open_provisioner(settings) as running:
        daemon = await running.daemon(await tenant.make_key(host=HOST))
        await tenant.fill()
        for attempt in (1, 2, 3):
            job = await daemon.acquire_some()
            assert job.lease.attempt == attempt
            await age(database, b"lease_expires_at")
            done = await sweep(database, PATIENCE)
            assert done == (Swept(put_back=1) if attempt < 3 else Swept(failed=1))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await daemon.update(job)
            assert reason_of(refused.value) == "LEASE_LOST"

    assert await fetch(database, b"SELECT state, failure_class FROM prebuilds") == ("failed", "infrastructure")


async def test_a_renewed_lease_is_left_alone(daemon: DaemonClient, tenant: Tenant, database: Database) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()

    assert not await sweep(database, PATIENCE)
    assert await job_status(database, job.lease.job_id) == "running"


async def test_a_job_that_nobody_takes_fails_with_a_clear_reason(tenant: Tenant, database: Database) -> None:
    (queued,) = await tenant.fill()
    await age(database, b"created_at")

    assert await sweep(database, PATIENCE) == Swept(failed=1)

    status, error = await fetch(database, b"SELECT status, error FROM jobs WHERE id = %(id)s", id=queued.job_id)
    assert status == "failed"
    assert error == ("no daemon took the job within 30 min (backend process; tags that its key must carry: none)")


async def test_a_cancellation_is_forced_after_its_grace(
    database_url: str, nats_url: str, tenant: Tenant, database: Database
) -> None:
    settings = provisioner_settings(database_url, nats_url, sweep_interval=timedelta(minutes=1))
    async with open_provisioner(settings) as running:
        daemon = await running.daemon(await tenant.make_key(host=HOST))
        await tenant.fill()
        job = await daemon.acquire_some()
        async with database.transaction("cancel") as tx:
            await tx.run(b"UPDATE jobs SET status = 'canceling', cancel_requested_at = now()")
        assert not await sweep(database, PATIENCE)
        await age(database, b"cancel_requested_at")

        assert await sweep(database, PATIENCE) == Swept(canceled=1)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await daemon.fail(job, canceled=True)
        assert reason_of(refused.value) == "LEASE_LOST"
    assert await fetch(database, b"SELECT state FROM prebuilds") == ("canceled",)


async def test_sweeps_of_several_replicas_act_once(tenant: Tenant, database: Database) -> None:
    await tenant.fill(10)
    await age(database, b"created_at")

    done = await asyncio.gather(*(sweep(database, PATIENCE) for _ in range(4)))

    assert sum(each.failed for each in done) == 10


async def test_a_job_that_cannot_be_swept_hides_no_other(
    tenant: Tenant, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *_ = await tenant.fill(5)
    await age(database, b"created_at")

    async def lock_job(tx: Transaction, job_id: JobId) -> object:
        if job_id == bad.job_id:
            raise RuntimeError("cannot be read")
        return await finishing.lock_job(tx, job_id)

    monkeypatch.setattr(sweeps, "lock_job", lock_job)

    assert await sweep(database, PATIENCE) == Swept(failed=4, broken=1)


async def test_the_service_sweeps_by_itself(database_url: str, nats_url: str, tenant: Tenant) -> None:
    settings = provisioner_settings(
        database_url, nats_url, sweep_interval=timedelta(milliseconds=20), lease_duration=timedelta(seconds=1)
    )
    async with open_provisioner(settings) as running:
        daemon = await running.daemon(await tenant.make_key(host=HOST))
        await tenant.fill()
        first = await daemon.acquire_some()

        second = await replace(daemon, name="another").acquire(timedelta(seconds=30))

    assert second is not None
    assert (second.lease.job_id, second.lease.attempt) == (first.lease.job_id, 2)
