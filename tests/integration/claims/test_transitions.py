"""Starting, stopping, deleting and cancelling."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import grpc
import pytest

from prebuilds.claims import watching
from prebuilds.domain.agents import AgentState
from prebuilds.domain.builds import PERSON_PRIORITY, BuildOutcome
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import SYSTEM_USER_ID, JobId, OrganizationId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import claim_pb2, claim_service_pb2, workspace_pb2
from prebuilds.v1 import workspace_service_pb2 as pb
from tests.support.builders import end_build
from tests.support.claims import (
    Caller,
    ClaimsService,
    agents_are,
    change,
    make_sized_pool,
    pooled,
    ready_prebuilds,
    refuses,
    rows,
)
from tests.support.provisioning import HOST, Provisioner, Tenant

COLD = claim_pb2.CLAIM_MODE_COLD


async def running(database: Database, person: Caller, name: str = "mine") -> workspace_pb2.Workspace:
    """A workspace that was built cold and runs."""
    answer = await person.create(name=name, mode=COLD)
    await end_build(database, JobId(UUID(answer.build.job_id)))
    return answer.workspace


async def test_a_stop_a_start_and_a_delete_follow_each_other(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    workspace = await running(database, alice)

    stopping = await alice.call("StopWorkspace", pb.StopWorkspaceRequest(id=workspace.id))
    await end_build(database, JobId(UUID(stopping.build.job_id)))
    stopped = await alice.call("GetWorkspace", pb.GetWorkspaceRequest(id=workspace.id))
    starting = await alice.call(
        "StartWorkspace", pb.StartWorkspaceRequest(id=workspace.id, parameters={"dotfiles": "new"})
    )
    await end_build(database, JobId(UUID(starting.build.job_id)), agents=["main"])
    deleting = await alice.call("DeleteWorkspace", pb.DeleteWorkspaceRequest(id=workspace.id))
    await end_build(database, JobId(UUID(deleting.build.job_id)))
    deleted = await alice.call("GetWorkspace", pb.GetWorkspaceRequest(id=workspace.id))

    assert stopping.workspace.status == workspace_pb2.WORKSPACE_STATUS_STOPPING
    assert stopped.workspace.status == workspace_pb2.WORKSPACE_STATUS_STOPPED
    assert starting.workspace.status == workspace_pb2.WORKSPACE_STATUS_PENDING
    assert (starting.build.number, starting.build.parameters["dotfiles"]) == (3, "new")
    assert deleting.workspace.status == workspace_pb2.WORKSPACE_STATUS_DELETING
    assert deleted.workspace.status == workspace_pb2.WORKSPACE_STATUS_DELETED
    assert deleted.workspace.HasField("delete_time")
    assert [deed.action for deed in await rows(database, schema.AuditEvent)] == [
        f"workspace.{verb}" for verb in ("create", "stop", "start", "delete")
    ]
    with refuses(Reason.NOT_FOUND):
        await alice.call("StartWorkspace", pb.StartWorkspaceRequest(id=workspace.id))


async def test_a_workspace_has_one_unfinished_build(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    created = await alice.create(mode=COLD)

    for method, request in [
        ("StartWorkspace", pb.StartWorkspaceRequest(id=created.workspace.id)),
        ("StopWorkspace", pb.StopWorkspaceRequest(id=created.workspace.id)),
        ("DeleteWorkspace", pb.DeleteWorkspaceRequest(id=created.workspace.id)),
    ]:
        with refuses(Reason.BUILD_UNFINISHED) as refused:
            await alice.call(method, request)
        assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
        assert refused.refused is not None
        assert refused.refused.metadata["subject"] == f"build:{created.build.id}"


async def test_the_same_stop_is_queued_once(claims_service: ClaimsService, database: Database, pool: PoolKey) -> None:
    alice = await claims_service.person()
    workspace = await running(database, alice)
    request = pb.StopWorkspaceRequest(id=workspace.id, request_id="one")

    answers = await asyncio.gather(*(alice.call("StopWorkspace", request) for _ in range(4)))

    assert len({answer.build.id for answer in answers}) == 1
    with refuses(Reason.REQUEST_ID_REUSED):
        await alice.call(
            "StopWorkspace", pb.StopWorkspaceRequest(id=(await alice.create(mode=COLD)).workspace.id, request_id="one")
        )


async def test_a_start_changes_only_mutable_parameters_to_good_values(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    workspace = await running(database, alice)

    with refuses(Reason.INVALID_FIELDS) as refused:
        await alice.call(
            "StartWorkspace",
            pb.StartWorkspaceRequest(id=workspace.id, parameters={"size": "large", "cpus": "x", "nope": ""}),
        )
    with refuses(Reason.NOT_FOUND):
        await alice.call("StartWorkspace", pb.StartWorkspaceRequest(id=workspace.id, version="17"))

    assert set(refused.fields) == {"parameters.size", "parameters.cpus", "parameters.nope"}


async def test_a_deleted_template_starts_nothing(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    workspace = await running(database, alice)
    await change(database, schema.Template, pool.template_id, deleted=True)

    with refuses(Reason.TEMPLATE_DELETED):
        await alice.call("StartWorkspace", pb.StartWorkspaceRequest(id=workspace.id))


async def test_a_stop_supersedes_a_claim_that_is_being_handed_over(
    claims_service: ClaimsService, database: Database, acme: OrganizationId
) -> None:
    pool = await make_sized_pool(database, acme, strategy=ClaimStrategy.INSTANT)
    await ready_prebuilds(database, pool)
    alice = await claims_service.person()
    created = await alice.create(preset="small")

    await alice.call("StopWorkspace", pb.StopWorkspaceRequest(id=created.workspace.id))

    got = await alice.call("GetClaim", claim_service_pb2.GetClaimRequest(id=created.claim.id))
    assert got.claim.state == claim_pb2.CLAIM_STATE_SUPERSEDED


async def test_others_may_not_change_what_they_may_see_and_not_see_what_is_not_theirs(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    workspace = await running(database, await claims_service.person("alice"))
    stranger = await claims_service.person("stranger", organization="elsewhere")
    colleague = await claims_service.person("bob")
    admin = await claims_service.person("admin", Role.TEMPLATE_ADMIN)
    request = pb.StopWorkspaceRequest(id=workspace.id)

    with refuses(Reason.PERMISSION_DENIED):
        await stranger.call("StopWorkspace", request)
    with refuses(Reason.NOT_FOUND):
        await colleague.call("StopWorkspace", request)
    with refuses(Reason.PERMISSION_DENIED):
        await admin.call("StopWorkspace", request)
    with refuses(Reason.PERMISSION_DENIED):
        await admin.call("DeleteWorkspace", pb.DeleteWorkspaceRequest(id=workspace.id))
    assert (await (await claims_service.person("boss", Role.OWNER)).call("StopWorkspace", request)).build.id


async def test_a_template_admin_deletes_a_prebuild_and_loses_that_power_at_the_claim(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    first, second = await ready_prebuilds(database, pool, 2)
    admin, alice = await claims_service.person("admin", Role.TEMPLATE_ADMIN), await claims_service.person("alice")

    deleting = await admin.call("DeleteWorkspace", pb.DeleteWorkspaceRequest(id=str(first)))
    with refuses(Reason.NOT_FOUND):
        await alice.call("DeleteWorkspace", pb.DeleteWorkspaceRequest(id=str(second)))
    claimed = await alice.create(preset="small")
    await end_build(database, JobId(UUID(claimed.build.job_id)))
    with refuses(Reason.PERMISSION_DENIED):
        await admin.call("DeleteWorkspace", pb.DeleteWorkspaceRequest(id=str(second)))

    assert claimed.workspace.id == str(second)
    assert deleting.workspace.prebuild.HasField("delete_mark_time")
    assert deleting.workspace.status == workspace_pb2.WORKSPACE_STATUS_DELETING


async def test_a_prebuild_that_its_organisations_owner_stops_is_parked(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    boss = await claims_service.person("boss", Role.OWNER)

    stopping = await boss.call("StopWorkspace", pb.StopWorkspaceRequest(id=str(prebuild)))
    answer = await boss.create(preset="small")
    await end_build(database, JobId(UUID(stopping.build.job_id)))

    assert answer.outcome == claim_pb2.CREATION_OUTCOME_MISS
    assert await pooled(database, pool) == 1
    (row,) = await rows(database, schema.Prebuild)
    assert (row.state, row.ready_at) == ("stopped", None)


async def test_a_prebuild_is_restarted_as_it_is_and_never_as_another(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    boss = await claims_service.person("boss", Role.OWNER)
    (before,) = await rows(database, schema.Build, workspace_id=prebuild)

    for request in (
        pb.StartWorkspaceRequest(id=str(prebuild), version="1"),
        pb.StartWorkspaceRequest(id=str(prebuild), parameters={"dotfiles": "boss's own"}),
    ):
        with refuses(Reason.SYSTEM_OWNED) as refused:
            await boss.call("StartWorkspace", request)
        assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
    restarted = await boss.call("StartWorkspace", pb.StartWorkspaceRequest(id=str(prebuild)))
    (after,) = await rows(database, schema.Build, workspace_id=prebuild, number=2)

    assert restarted.build.number == 2
    assert (after.version_id, after.preset_id) == (before.version_id, before.preset_id)
    assert after.parameters == before.parameters | {"debug": "false"}


async def test_no_lifecycle_rule_reaches_a_prebuild_that_a_person_restarts(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    await change(database, schema.Workspace, prebuild, ttl=timedelta(hours=1))

    await (await claims_service.person("boss", Role.OWNER)).call(
        "StartWorkspace", pb.StartWorkspaceRequest(id=str(prebuild))
    )

    (workspace,) = await rows(database, schema.Workspace, id=prebuild)
    assert (workspace.last_used_at, workspace.deadline) == (None, None)


async def test_a_persons_delete_of_a_prebuild_is_that_persons(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    admin = await claims_service.person("admin", Role.TEMPLATE_ADMIN)

    deleting = await admin.call("DeleteWorkspace", pb.DeleteWorkspaceRequest(id=str(prebuild)))

    assert deleting.build.reason == workspace_pb2.BUILD_REASON_USER
    assert deleting.build.initiator_name == "admin"
    (job,) = await rows(database, schema.Job, build_id=UUID(deleting.build.id))
    assert job.priority == PERSON_PRIORITY
    (deed,) = await rows(database, schema.AuditEvent)
    assert (deed.action, deed.principal_name, deed.resource_id) == ("workspace.delete", "admin", prebuild)


@pytest.mark.parametrize("outcome", [BuildOutcome.FAILED, BuildOutcome.CANCELED])
async def test_a_prebuild_whose_delete_came_to_nothing_can_be_deleted_again(
    outcome: BuildOutcome, claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    admin = await claims_service.person("admin", Role.TEMPLATE_ADMIN)
    request = pb.DeleteWorkspaceRequest(id=str(prebuild))
    first = await admin.call("DeleteWorkspace", request)
    with refuses(Reason.BUILD_UNFINISHED) as refused:
        await admin.call("DeleteWorkspace", request)
    assert refused.refused is not None
    assert refused.refused.metadata["subject"] == f"build:{first.build.id}"
    await end_build(database, JobId(UUID(first.build.job_id)), outcome)

    second = await admin.call("DeleteWorkspace", request)
    await end_build(database, JobId(UUID(second.build.job_id)))

    assert second.build.number == first.build.number + 1
    assert second.workspace.prebuild.delete_mark_time == first.workspace.prebuild.delete_mark_time
    assert await pooled(database, pool) == 0
    assert len(await rows(database, schema.PoolEvent, kind=PoolEventKind.DELETED)) == 1


async def test_a_queued_claim_build_can_be_cancelled_and_the_person_keeps_the_workspace(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)
    alice = await claims_service.person()
    created = await alice.create(preset="small")

    canceled = await alice.call("CancelBuild", pb.CancelBuildRequest(id=created.build.id))
    again = pb.CancelBuildRequest(id=created.build.id)
    with refuses(Reason.JOB_FINISHED):
        await alice.call("CancelBuild", again)
    got = await alice.call("GetClaim", claim_service_pb2.GetClaimRequest(id=created.claim.id))
    starting = await alice.call("StartWorkspace", pb.StartWorkspaceRequest(id=created.workspace.id))

    assert canceled.build.status == workspace_pb2.BUILD_STATUS_CANCELED
    assert got.claim.state == claim_pb2.CLAIM_STATE_FAILED
    assert starting.workspace.owner_name == "alice"
    assert starting.workspace.handover_generation == 1


async def test_cancelling_a_build_asks_the_daemon_that_has_it(
    claims_service: ClaimsService, provisioner: Provisioner, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)
    alice = await claims_service.person()
    created = await alice.create(preset="small")
    tenant = Tenant(database, pool.organization_id, pool, SYSTEM_USER_ID, "prebuilds")
    daemon = await provisioner.daemon(await tenant.make_key(host=HOST))
    job = await daemon.acquire_some()
    assert not (await daemon.update(job)).cancel_requested
    request = pb.CancelBuildRequest(id=created.build.id)

    canceling = await alice.call("CancelBuild", request)
    again = await alice.call("CancelBuild", request)
    answer = await daemon.update(job)
    await daemon.fail(job, canceled=True)
    got = await alice.call("GetClaim", claim_service_pb2.GetClaimRequest(id=created.claim.id))

    assert canceling.build.status == again.build.status == workspace_pb2.BUILD_STATUS_CANCELING
    assert answer.cancel_requested
    assert got.claim.state == claim_pb2.CLAIM_STATE_FAILED
    with refuses(Reason.JOB_FINISHED):
        await alice.call("CancelBuild", request)
    assert [deed.action for deed in await rows(database, schema.AuditEvent)] == [
        "workspace.claim",
        "build.cancel",
    ]


@pytest.mark.parametrize(
    "method", ["GetWorkspace", "StartWorkspace", "StopWorkspace", "DeleteWorkspace", "CancelBuild"]
)
async def test_an_id_that_is_none_is_a_bad_field_and_one_of_nothing_is_not_found(
    method: str, claims_service: ClaimsService, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    request = getattr(pb, f"{method}Request")

    with refuses(Reason.INVALID_FIELDS) as refused:
        await alice.call(method, request(id="nonsense"))
    with refuses(Reason.NOT_FOUND):
        await alice.call(method, request(id=str(uuid4())))

    assert refused.fields == ("id",)


async def test_a_watcher_sees_a_claim_through_to_the_agents_readiness(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    alice = await claims_service.person()
    created = await alice.create(preset="small")
    stream = aiter(alice.watch(created.workspace.id))

    first = await anext(stream)
    await end_build(database, JobId(UUID(created.build.job_id)))
    second = await anext(stream)
    await agents_are(database, prebuild, AgentState.READY, 1)
    third = await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)

    assert first.claim.state == claim_pb2.CLAIM_STATE_BUILDING
    assert second.claim.state == claim_pb2.CLAIM_STATE_HANDING_OVER
    assert not second.workspace.ready
    assert third.workspace.ready
    resumed = [message async for message in alice.watch(created.workspace.id, third.resume_token)]
    assert resumed == []


async def test_a_watch_ends_with_what_failed(claims_service: ClaimsService, database: Database, pool: PoolKey) -> None:
    alice = await claims_service.person()
    failed = await alice.create(mode=COLD)
    await end_build(database, JobId(UUID(failed.build.job_id)), BuildOutcome.FAILED)
    broken = await alice.create(mode=COLD)
    await end_build(database, JobId(UUID(broken.build.job_id)))
    await agents_are(database, UUID(broken.workspace.id), AgentState.START_ERROR, 0)

    with refuses(Reason.BUILD_FAILED) as refused:
        async for message in alice.watch(failed.workspace.id):
            assert message.workspace.status == workspace_pb2.WORKSPACE_STATUS_FAILED
    assert refused.refused is not None
    assert refused.refused.metadata["build_id"] == failed.build.id
    with refuses(Reason.STARTUP_FAILED):
        async for _ in alice.watch(broken.workspace.id):
            pass


async def test_a_hint_wakes_a_watcher_long_before_it_looks_by_itself(
    claims_service: ClaimsService, database: Database, pool: PoolKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_AGAIN", timedelta(hours=1))
    alice = await claims_service.person()
    created = await alice.create(mode=COLD)
    stream = aiter(alice.watch(created.workspace.id))
    await anext(stream)

    await alice.call("CancelBuild", pb.CancelBuildRequest(id=created.build.id))

    async with asyncio.timeout(30):
        assert (await anext(stream)).workspace.status == workspace_pb2.WORKSPACE_STATUS_CANCELED
