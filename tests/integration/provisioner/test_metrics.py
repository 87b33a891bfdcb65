"""What the provisioner service measures of builds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
import pytest_asyncio
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from prebuilds.domain.builds import Transition
from prebuilds.domain.ids import WorkspaceId
from prebuilds.provisioner.app import open_app
from prebuilds.provisioner.rules.lost_jobs import Patience
from prebuilds.provisioner.sweeps import sweep
from prebuilds.store.database import Database
from prebuilds.store.jobs.leasing import MAX_ATTEMPTS
from tests.support.provisioning import HOST, DaemonClient, Provisioner, Tenant, provisioner_settings

POOL = {"organization": "default", "template": "python-dev", "preset": "small"}


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest_asyncio.fixture
async def measured(
    database_url: str, nats_url: str, tenant: Tenant, reader: InMemoryMetricReader
) -> AsyncIterator[DaemonClient]:
    """A daemon of a service whose metrics are read from memory."""
    settings = provisioner_settings(database_url, nats_url)
    async with open_app(settings, metric_readers=[reader]) as app, AsyncExitStack() as stack:
        yield await Provisioner(app, stack).daemon(await tenant.make_key(host=HOST))


def points(reader: InMemoryMetricReader, name: str) -> list[tuple[Mapping[str, object], HistogramDataPoint]]:
    data = reader.get_metrics_data()
    return [
        (dict(point.attributes or {}), point)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
        if isinstance(point, HistogramDataPoint)
    ]


async def test_the_wait_for_a_daemon_is_measured_by_transition_and_reason(
    measured: DaemonClient, tenant: Tenant, reader: InMemoryMetricReader
) -> None:
    (prebuild,) = await tenant.fill()
    await measured.complete(await measured.acquire_some())
    await tenant.make_eligible(prebuild.workspace_id)
    await tenant.claim()
    await measured.complete(await measured.acquire_some())
    await tenant.build_again(prebuild.workspace_id, Transition.STOP)
    await measured.acquire_some()

    found = {
        (labels["transition"], labels["reason"]): point.count
        for labels, point in points(reader, "prebuilds_job_queue_wait_seconds")
    }

    assert found == {("start", "prebuild"): 1, ("start", "claim"): 1, ("stop", "user"): 1}


async def test_a_job_that_was_put_back_waits_since_its_lease_was_lost(
    measured: DaemonClient, tenant: Tenant, database: Database, reader: InMemoryMetricReader
) -> None:
    await tenant.fill()
    await measured.acquire_some()
    async with database.transaction("test") as tx:
        await tx.run(
            b"UPDATE jobs SET created_at = now() - interval '2 h', lease_expires_at = now() - interval '1 min'"
        )
    await sweep(database, Patience(timedelta(minutes=1), timedelta(hours=3), MAX_ATTEMPTS))

    await measured.acquire_some()

    ((_, point),) = points(reader, "prebuilds_job_queue_wait_seconds")
    assert point.count == 2
    assert 60 <= point.max < 3600


async def test_creations_are_measured_by_type(
    measured: DaemonClient, tenant: Tenant, reader: InMemoryMetricReader
) -> None:
    (prebuild,) = await tenant.fill()
    await measured.complete(await measured.acquire_some())
    await tenant.make_eligible(prebuild.workspace_id)
    await tenant.claim()
    await measured.complete(await measured.acquire_some())
    cold = await tenant.build_for_person()
    await measured.complete(await measured.acquire_some())
    await finish(measured, tenant, cold.workspace_id, Transition.STOP)
    await finish(measured, tenant, cold.workspace_id, Transition.START)
    await tenant.fill()
    await measured.fail(await measured.acquire_some(), error="no", failure_class="FAILURE_CLASS_TEMPLATE")

    found = points(reader, "prebuilds_workspace_creation_duration_seconds")

    assert {labels["type"]: point.count for labels, point in found} == {"prebuild": 1, "claim": 1, "cold": 1}
    assert all({key: labels[key] for key in POOL} == POOL for labels, _ in found)


async def finish(daemon: DaemonClient, tenant: Tenant, workspace_id: WorkspaceId, transition: Transition) -> None:
    """A later build of a workspace, which creates nothing."""
    await tenant.build_again(workspace_id, transition)
    job = await daemon.acquire_some()
    agents = [agent.name for agent in job.agents] if transition is Transition.START else []
    await daemon.complete(job, agent_names=agents)
