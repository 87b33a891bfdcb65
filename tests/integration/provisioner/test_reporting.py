from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import grpc
import grpc.aio
import psycopg
import pytest
import pytest_asyncio

from prebuilds.domain.builds import Transition
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import WorkspaceId
from prebuilds.store.database import Database, open_database
from prebuilds.v1 import job_pb2, provisioner_service_pb2, workspace_pb2
from tests.support.provisioning import (
    HOST,
    DaemonClient,
    Provisioner,
    Tenant,
    fetch,
    job_status,
    make_tenant,
    reason_of,
)


def log(sequence: int, text: str = "line") -> job_pb2.JobLog:
    line = job_pb2.JobLog(sequence=sequence, text=text, stage="apply", level=workspace_pb2.LOG_LEVEL_WARN)
    line.log_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    return line


RECORD_EVENTS = b"""
CREATE TABLE told (event text, traceparent text);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO told VALUES (new.event, new.traceparent); RETURN new; END';
CREATE TRIGGER tell AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION tell()
"""


@pytest_asyncio.fixture(autouse=True)
async def recorded(database_url: str) -> None:
    """Remember each event: the relay takes what it has published out of the outbox at once."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(RECORD_EVENTS)


async def events(database: Database) -> set[str]:
    (found,) = await fetch(database, b"SELECT coalesce(array_agg(event), '{}') FROM told")
    return set(found)


async def forget_events(database: Database) -> None:
    async with database.transaction("forget") as tx:
        await tx.run(b"DELETE FROM told")


async def test_log_lines_are_stored_once(daemon: DaemonClient, tenant: Tenant, database: Database) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()

    await daemon.update(job, [log(1), log(2, "second")])
    await daemon.update(job, [log(2), log(3)])

    stored = await fetch(
        database,
        b"SELECT array_agg(sequence ORDER BY id), array_agg(DISTINCT level), max(line) FROM job_logs"
        b" WHERE job_id = %(id)s",
        id=job.lease.job_id,
    )
    assert stored == ([1, 2, 3], ["warn"], "second")


async def test_an_update_renews_the_lease(daemon: DaemonClient, tenant: Tenant) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()

    answer = await daemon.update(job)

    assert answer.lease_expire_time.ToNanoseconds() > job.lease.expire_time.ToNanoseconds()
    assert answer.lease_duration.seconds == 30
    assert not answer.cancel_requested


async def test_a_cancelled_job_is_told_so(daemon: DaemonClient, tenant: Tenant, database: Database) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()
    await ask_to_cancel(database, job)

    answer = await daemon.update(job)

    assert answer.cancel_requested
    assert answer.HasField("cancel_deadline")
    assert (await daemon.fail(job, canceled=True)).status == workspace_pb2.BUILD_STATUS_CANCELED


async def ask_to_cancel(database: Database, job: job_pb2.AcquiredJob) -> None:
    async with database.transaction("cancel") as tx:
        await tx.run(
            b"UPDATE jobs SET status = 'canceling', cancel_requested_at = now() WHERE id = %(id)s",
            {"id": job.lease.job_id},
        )


async def test_giving_up_unasked_is_a_failure_of_the_infrastructure(daemon: DaemonClient, tenant: Tenant) -> None:
    await tenant.fill()

    ended = await daemon.fail(await daemon.acquire_some(), canceled=True)

    assert ended.status == workspace_pb2.BUILD_STATUS_FAILED
    assert ended.failure_class == workspace_pb2.FAILURE_CLASS_INFRASTRUCTURE


async def test_completing_again_gets_the_same_answer(daemon: DaemonClient, tenant: Tenant, database: Database) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()
    ended = await daemon.complete(job, daily_cost=7)
    await forget_events(database)

    again = await daemon.complete(job, daily_cost=7)

    assert again == ended
    assert ended.status == workspace_pb2.BUILD_STATUS_SUCCEEDED
    assert await events(database) == set()


async def test_failing_again_gets_the_same_answer(daemon: DaemonClient, tenant: Tenant) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()
    fields = {"error": "no disk", "failure_class": workspace_pb2.FAILURE_CLASS_INFRASTRUCTURE}

    ended = await daemon.fail(job, **fields)

    assert await daemon.fail(job, **fields) == ended
    assert (ended.error, ended.status) == ("no disk", workspace_pb2.BUILD_STATUS_FAILED)


async def test_a_late_report_under_an_old_lease_is_aborted(
    daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    await tenant.fill()
    first = await daemon.acquire_some()
    async with database.transaction("lose") as tx:
        await tx.run(b"UPDATE jobs SET status = 'pending', lease_id = NULL")
    second = await daemon.acquire_some()
    await daemon.complete(second)

    for call in (daemon.update(first), daemon.complete(first), daemon.fail(first, canceled=True)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() == grpc.StatusCode.ABORTED
        assert reason_of(refused.value) == "LEASE_LOST"
    assert await job_status(database, first.lease.job_id) == "succeeded"


async def test_a_completed_start_moves_the_pool_row(daemon: DaemonClient, tenant: Tenant, database: Database) -> None:
    (queued,) = await tenant.fill()
    job = await daemon.acquire_some()
    await forget_events(database)

    await daemon.complete(job, daily_cost=7, provisioner_state=b"state")

    row = await fetch(
        database,
        b"SELECT p.state, p.daily_cost, p.ready_at, b.outcome, b.host, b.provisioner_state, b.daily_cost"
        b" FROM prebuilds p JOIN builds b USING (workspace_id) WHERE workspace_id = %(id)s",
        id=queued.workspace_id,
    )
    assert row == ("running", 7, None, "succeeded", HOST, b"state", 7)
    assert await events(database) == {"build_changed"}


async def test_agents_that_were_ready_before_make_a_completed_prebuild_ready(
    daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()
    async with database.transaction("ready") as tx:
        await tx.run(b"UPDATE agents SET state = 'ready'")

    await daemon.complete(job)

    assert (await fetch(database, b"SELECT ready_at IS NOT NULL FROM prebuilds"))[0]
    assert "agent_ready" in await events(database)


async def test_a_failed_start_fails_the_prebuild_and_is_remembered(
    daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()

    await daemon.fail(job, error="exit 1", failure_class=workspace_pb2.FAILURE_CLASS_TEMPLATE)

    assert await fetch(database, b"SELECT state, failure_class FROM prebuilds") == ("failed", "template")
    assert await fetch(database, b"SELECT preset_name, failure_class FROM pool_events WHERE kind = 'failed'") == (
        "small",
        "template",
    )


async def test_a_start_without_any_agent_fails_the_build(
    daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()

    ended = await daemon.complete(job, agent_names=["nobody"])

    assert ended.status == workspace_pb2.BUILD_STATUS_FAILED
    assert ended.error == "the build left no agent"
    assert await daemon.complete(job, agent_names=["nobody"]) == ended
    assert await fetch(database, b"SELECT state, failure_class FROM prebuilds") == ("failed", "template")


async def test_agents_that_a_result_lacks_are_retired(provisioner: Provisioner, database: Database) -> None:
    tenant = await make_tenant(database, agents=("main", "side"))
    daemon = await provisioner.daemon(await tenant.make_key(host=HOST))
    await tenant.fill()
    job = await daemon.acquire_some()
    assert [agent.name for agent in job.agents] == ["main", "side"]

    await daemon.complete(job, agent_names=["main"])

    assert await fetch(database, b"SELECT array_agg(name) FROM agents WHERE retired") == (["side"],)
    assert "agent_revoked" in await events(database)


async def claim_build(daemon: DaemonClient, tenant: Tenant) -> tuple[WorkspaceId, job_pb2.AcquiredJob]:
    (queued,) = await tenant.fill()
    first = await daemon.acquire_some()
    await daemon.complete(first, provisioner_state=b"of the first")
    await tenant.make_eligible(queued.workspace_id)
    await tenant.claim()
    job = await daemon.acquire_some()
    assert [agent.token for agent in job.agents] == [agent.token for agent in first.agents]
    return queued.workspace_id, job


async def test_a_claim_build_is_for_the_new_owner_with_the_same_tokens(daemon: DaemonClient, tenant: Tenant) -> None:
    _, job = await claim_build(daemon, tenant)

    assert job.is_prebuild_claim
    assert not job.is_prebuild
    assert (job.owner_name, job.workspace_name, job.generation) == (tenant.person_name, "mine", 1)
    assert job.provisioner_state == b"of the first"
    assert job.host_id == HOST


async def test_a_completed_claim_build_makes_the_handover_due(
    daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    workspace_id, job = await claim_build(daemon, tenant)
    await forget_events(database)

    await daemon.complete(job)

    assert await fetch(
        database,
        b"SELECT c.state, w.handover_generation FROM claims c JOIN workspaces w ON w.id = c.workspace_id"
        b" WHERE w.id = %(id)s",
        id=workspace_id,
    ) == ("handing_over", 1)
    assert await events(database) == {"handover_due", "build_changed"}


async def test_a_failed_claim_build_fails_the_claim_and_leaves_the_workspace(
    daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    workspace_id, job = await claim_build(daemon, tenant)
    await forget_events(database)

    await daemon.fail(job, error="exit 1", failure_class=workspace_pb2.FAILURE_CLASS_TEMPLATE)

    state, reason, generation, deleted = await fetch(
        database,
        b"SELECT c.state, c.reason, w.handover_generation, w.deleted FROM claims c"
        b" JOIN workspaces w ON w.id = c.workspace_id WHERE w.id = %(id)s",
        id=workspace_id,
    )
    assert (state, generation, deleted) == ("failed", 0, False)
    assert "exit 1" in reason
    assert await events(database) == {"handover_ended", "build_changed"}


async def test_an_instant_claim_needs_no_job(provisioner: Provisioner, database: Database) -> None:
    tenant = await make_tenant(database, strategy=ClaimStrategy.INSTANT)
    daemon = await provisioner.daemon(await tenant.make_key(host=HOST))
    (queued,) = await tenant.fill()
    await daemon.complete(await daemon.acquire_some())
    await tenant.make_eligible(queued.workspace_id)

    await tenant.claim()

    assert await daemon.acquire() is None


async def test_a_completed_delete_removes_the_workspace(
    daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    queued = await tenant.build_for_person()
    await daemon.complete(await daemon.acquire_some())
    await tenant.build_again(queued.workspace_id, Transition.DELETE)
    job = await daemon.acquire_some()
    assert job.transition == workspace_pb2.TRANSITION_DELETE

    await daemon.complete(job, agent_names=[], host_id="")

    assert await fetch(database, b"SELECT deleted FROM workspaces WHERE id = %(id)s", id=queued.workspace_id) == (True,)


async def test_a_new_start_raises_the_epoch_and_gets_the_state_left_before(
    daemon: DaemonClient, tenant: Tenant
) -> None:
    queued = await tenant.build_for_person()
    first = await daemon.acquire_some()
    await daemon.complete(first, provisioner_state=b"one")
    await tenant.build_again(queued.workspace_id, Transition.STOP)
    await daemon.complete(await daemon.acquire_some(), agent_names=[], provisioner_state=b"two")
    await tenant.build_again(queued.workspace_id, Transition.START)

    again = await daemon.acquire_some()

    assert again.provisioner_state == b"two"
    assert again.build_number == 3
    assert [agent.id for agent in again.agents] == [agent.id for agent in first.agents]
    assert [agent.token for agent in again.agents] != [agent.token for agent in first.agents]


async def test_a_host_that_the_key_does_not_carry_is_refused(daemon: DaemonClient, tenant: Tenant) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.complete(job, host_id="host-2")

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_wrong_with_a_report_is_told_at_once(daemon: DaemonClient, tenant: Tenant) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()
    job.lease.lease_id = "no id"

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.complete(job, daily_cost=-1, logs=[job_pb2.JobLog()])

    for field in ("lease.lease_id", "daily_cost", "logs[0].sequence", "logs[0].log_time"):
        assert field in (refused.value.details() or "")


async def test_an_unknown_job_is_not_found(daemon: DaemonClient) -> None:
    job = job_pb2.AcquiredJob(lease=job_pb2.JobLease(job_id=str(UUID(int=1)), lease_id=str(UUID(int=2))))

    for call in (daemon.update(job), daemon.complete(job)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_the_trace_of_a_build_goes_on_from_its_queueing_to_its_events(
    daemon: DaemonClient, tenant: Tenant, database: Database, database_url: str
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    traceparent = f"00-{trace_id}-b7ad6b7169203331-01"
    async with open_database(database_url, min_size=1, trace_context=lambda: traceparent) as traced:
        await replace(tenant, database=traced).fill()
    job = await daemon.acquire_some()
    assert job.traceparent == traceparent
    await forget_events(database)
    request = provisioner_service_pb2.CompleteJobRequest(lease=job.lease, agent_names=["main"], host_id=HOST)

    await daemon.stub.CompleteJob(request, metadata=(("traceparent", job.traceparent),))

    (carried,) = await fetch(database, b"SELECT traceparent FROM told WHERE event = 'build_changed'")
    assert trace_id in carried


async def test_a_prebuild_whose_agent_had_failed_before_its_build_ended_is_dead(
    daemon: DaemonClient, tenant: Tenant, database: Database
) -> None:
    await tenant.fill()
    job = await daemon.acquire_some()
    async with database.transaction("fail") as tx:
        await tx.run(b"UPDATE agents SET state = 'start_error'")

    await daemon.complete(job)

    assert await fetch(database, b"SELECT state, failure_class, ready_at FROM prebuilds") == (
        "failed",
        "template",
        None,
    )


async def test_a_retired_agent_is_not_missed(provisioner: Provisioner, database: Database) -> None:
    tenant = await make_tenant(database, agents=("main", "side"))
    daemon = await provisioner.daemon(await tenant.make_key(host=HOST))
    await tenant.fill()
    job = await daemon.acquire_some()
    async with database.transaction("attach") as tx:
        await tx.run(b"UPDATE agents SET state = 'ready', gateway_id = gen_random_uuid() WHERE name = 'main'")

    await daemon.complete(job, agent_names=["main"])

    assert await fetch(
        database, b"SELECT ready_at IS NOT NULL, cardinality(gateways), disconnected_at FROM prebuilds"
    ) == (True, 1, None)
