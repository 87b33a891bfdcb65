"""What people can still do with templates that are deprecated or deleted, and with their workspaces of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from uuid import UUID

import grpc
import psycopg
import pytest
import pytest_asyncio

from prebuilds.domain.builds import Transition
from prebuilds.domain.ids import SYSTEM_USER_ID, JobId
from prebuilds.domain.refusals import Reason
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import claim_pb2, claim_service_pb2, workspace_pb2
from prebuilds.v1 import workspace_service_pb2 as pb
from tests.support.builders import end_build
from tests.support.claims import Caller, ClaimsService, change, pooled, ready_prebuilds, refuses, rows, run_claims
from tests.support.provisioning import HOST, Provisioner, Tenant
from tests.support.reconciling import Client, Stage, make_manifest
from tests.support.templates import delete_template, deprecate, eventually_queued
from tests.support.waiting import until_waiting

COLD = claim_pb2.CLAIM_MODE_COLD
MODES = [claim_pb2.CLAIM_MODE_PREFER_WARM, claim_pb2.CLAIM_MODE_REQUIRE_WARM, COLD]
RETIRED: Mapping[str, tuple[Mapping[str, object], Reason]] = {
    "deprecated": ({"deprecated": "use go-dev"}, Reason.TEMPLATE_DEPRECATED),
    "deleted": ({"deleted": True}, Reason.NOT_FOUND),
}


@pytest.mark.parametrize("how", RETIRED)
@pytest.mark.parametrize("mode", MODES)
async def test_nothing_is_created_however_warm_its_pool(
    how: str, mode: claim_pb2.ClaimMode, claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)
    alice = await claims_service.person()
    values, reason = RETIRED[how]
    await change(database, schema.Template, pool.template_id, **values)

    for named in ("python-dev", str(pool.template_id)):
        with refuses(reason):
            await alice.create(template=named, preset="small", mode=mode)
        with refuses(reason):
            await alice.create(template=named, preset="small", mode=mode, validate_only=True)

    assert await pooled(database, pool) == 1
    assert await rows(database, schema.Workspace, claimed_at=None, owner_id=SYSTEM_USER_ID)
    assert len(await rows(database, schema.Workspace)) == 1


@pytest.mark.parametrize("how", RETIRED)
async def test_a_template_that_is_retired_while_a_creation_is_on_its_way_is_refused_too(
    how: str, claims_service: ClaimsService, database: Database, pool: PoolKey, database_url: str
) -> None:
    alice = await claims_service.person()
    alice_id = (await alice.create(mode=COLD, name="first")).workspace.owner_id
    values, reason = RETIRED[how]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer:
        for mode in MODES:
            # The creation has read the template, and waits for whoever has the same request id.
            async with await psycopg.AsyncConnection.connect(database_url) as holder:
                await holder.execute(
                    "INSERT INTO requests (organization_id, principal, method, request_id, fingerprint, answer)"
                    " VALUES (%s, %s, 'CreateWorkspace', 'one', '', '{}')",
                    (pool.organization_id, f"person:{alice_id}"),
                )
                creating = asyncio.create_task(alice.create(preset="small", mode=mode, request_id="one"))
                await until_waiting(observer)
                await change(database, schema.Template, pool.template_id, **values)
                await holder.rollback()
            with refuses(reason):
                await creating
            await change(database, schema.Template, pool.template_id, deleted=False, deprecated="")

    assert [workspace.name for workspace in await rows(database, schema.Workspace)] == ["first"]


@pytest_asyncio.fixture
async def claims_beside(database_url: str, nats_url: str, tmp_path: Path) -> AsyncIterator[ClaimsService]:
    """The service with keys of its own, beside a reconciler."""
    folder = tmp_path / "claims"
    folder.mkdir()
    async for service in run_claims(database_url, nats_url, folder):
        yield service


async def test_workspaces_of_a_deprecated_template_go_on_and_those_of_a_deleted_one_only_end(
    claims_beside: ClaimsService, operator: Client, stage: Stage, database: Database
) -> None:
    pushed = await operator.push(make_manifest(instances=1))
    preset = pushed.presets[0]
    await eventually_queued(stage, preset.id, 1)
    await stage.make_eligible(preset.id)
    alice = await claims_beside.person()
    claimed = await alice.create(template="python-dev", preset="small", name="warm")
    assert claimed.outcome == claim_pb2.CREATION_OUTCOME_HIT
    cold = await alice.create(template="python-dev", mode=COLD, name="cold")

    await deprecate(operator, pushed.template.id, "use go-dev")

    # What is being built is built.
    for build in (claimed.build, cold.build):
        await end_build(database, JobId(UUID(build.job_id)), agents=["main"])
    with refuses(Reason.TEMPLATE_DEPRECATED) as refused:
        await alice.create(template="python-dev", preset="small")
    assert refused.refused is not None
    assert refused.refused.metadata["message"] == "use go-dev"
    for workspace in (claimed.workspace, cold.workspace):
        await end_to_end(database, alice, Transition.STOP, workspace)
        started = await end_to_end(database, alice, Transition.START, workspace)
        assert started.status == workspace_pb2.WORKSPACE_STATUS_RUNNING

    counted = await delete_template(operator, pushed.template.id)

    assert counted.workspace_count == 2
    with refuses(Reason.NOT_FOUND):
        await alice.create(template="python-dev", preset="small")
    await end_to_end(database, alice, Transition.STOP, claimed.workspace)
    for workspace in (claimed.workspace, cold.workspace):
        with refuses(Reason.TEMPLATE_DELETED) as refused:
            await alice.call("StartWorkspace", pb.StartWorkspaceRequest(id=workspace.id))
        assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
        assert refused.refused is not None
        assert refused.refused.metadata["subject"] == f"template:{pushed.template.id}"
        seen = (await alice.call("GetWorkspace", pb.GetWorkspaceRequest(id=workspace.id))).workspace
        assert seen.template_name == "python-dev"
        deleted = await end_to_end(database, alice, Transition.DELETE, workspace)
        assert deleted.status == workspace_pb2.WORKSPACE_STATUS_DELETED
    assert (await delete_template(operator, pushed.template.id)).workspace_count == 0


@pytest.mark.parametrize("how", RETIRED)
async def test_a_claim_of_before_is_built_and_handed_over(
    how: str, claims_service: ClaimsService, provisioner: Provisioner, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)
    alice = await claims_service.person()
    created = await alice.create(preset="small")
    tenant = Tenant(database, pool.organization_id, pool, SYSTEM_USER_ID, "prebuilds")
    daemon = await provisioner.daemon(await tenant.make_key(host=HOST))
    await change(database, schema.Template, pool.template_id, **RETIRED[how][0])

    job = await daemon.complete(await daemon.acquire_some())

    assert job.build_id == created.build.id
    got = await alice.call("GetClaim", claim_service_pb2.GetClaimRequest(id=created.claim.id))
    assert got.claim.state == claim_pb2.CLAIM_STATE_HANDING_OVER


async def end_to_end(
    database: Database, person: Caller, transition: Transition, workspace: workspace_pb2.Workspace
) -> workspace_pb2.Workspace:
    """Have a workspace started, stopped or deleted, to its end, and give it as it is then."""
    method = f"{transition.value.capitalize()}Workspace"
    answer = await person.call(method, getattr(pb, f"{method}Request")(id=workspace.id))
    await end_build(database, JobId(UUID(answer.build.job_id)), agents=["main"])
    return (await person.call("GetWorkspace", pb.GetWorkspaceRequest(id=workspace.id))).workspace
