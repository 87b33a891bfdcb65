"""Lists: who sees what, filters and pages."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from prebuilds.domain.ids import JobId
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import claim_pb2, claim_service_pb2
from prebuilds.v1 import workspace_service_pb2 as pb
from tests.support.builders import end_build
from tests.support.claims import Caller, ClaimsService, ready_prebuilds, refuses

COLD = claim_pb2.CLAIM_MODE_COLD


async def names(person: Caller, **wanted: Any) -> list[str]:
    """What ListWorkspaces gives this person."""
    answer = await person.call("ListWorkspaces", pb.ListWorkspacesRequest(organization="acme", **wanted))
    return [workspace.name for workspace in answer.workspaces]


async def test_members_see_their_own_and_admins_all(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice, bob = await claims_service.person("alice"), await claims_service.person("bob")
    auditor = await claims_service.person("auditor", Role.AUDITOR)
    stranger = await claims_service.person("stranger", organization="elsewhere")
    await alice.create(name="hers", mode=COLD)
    his = await bob.create(name="his", mode=COLD)
    await ready_prebuilds(database, pool)

    assert await names(alice) == ["hers"]
    assert await names(auditor) == ["his", "hers"]
    assert await names(auditor, filter="owner=bob") == ["his"]
    assert await names(bob, filter="owner=me") == ["his"]
    assert len(await names(auditor, filter="is_prebuild=true")) == 1
    assert len(await names(auditor, filter="is_prebuild=any")) == 3
    assert await names(alice, filter="is_prebuild=any") == ["hers"]
    with refuses(Reason.PERMISSION_DENIED):
        await names(stranger)
    with refuses(Reason.NOT_FOUND):
        await alice.call("GetWorkspace", pb.GetWorkspaceRequest(id=his.workspace.id))
    assert (await auditor.call("GetWorkspace", pb.GetWorkspaceRequest(id=his.workspace.id))).workspace.name == "his"


async def test_pages_go_through_everything_once(claims_service: ClaimsService, pool: PoolKey) -> None:
    alice = await claims_service.person()
    for number in range(5):
        await alice.create(name=f"w{number}", mode=COLD)
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListWorkspacesRequest(organization="acme", page_size=2, page_token=token)
        answer = await alice.call("ListWorkspaces", request)
        seen += [workspace.name for workspace in answer.workspaces]
        token = answer.next_page_token
        if not token:
            break

    assert seen == ["w4", "w3", "w2", "w1", "w0"]


@pytest.mark.parametrize("token", ["nonsense", "WyJhIiwgMV0=", "ÿ"])
async def test_a_token_of_another_query_is_refused(token: str, claims_service: ClaimsService, pool: PoolKey) -> None:
    alice = await claims_service.person()
    for name in ("a", "b"):
        await alice.create(name=name, mode=COLD)
    first = await alice.call("ListWorkspaces", pb.ListWorkspacesRequest(organization="acme", page_size=1))

    with refuses(Reason.PAGE_TOKEN_INVALID):
        await names(alice, page_token=token)
    with refuses(Reason.PAGE_TOKEN_INVALID):
        await names(alice, page_token=first.next_page_token, filter="name=a")


async def test_filters_choose_and_bad_ones_are_told(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    up = await alice.create(name="up", mode=COLD, preset="small")
    await end_build(database, JobId(UUID(up.build.job_id)))
    await alice.create(name="waits", mode=COLD)

    assert await names(alice, filter="status=running") == ["up"]
    assert await names(alice, filter="status=pending AND template=python-dev") == ["waits"]
    assert await names(alice, filter=f"preset={pool.preset_id} AND dormant=false") == ["up"]
    assert await names(alice, filter="name=waits") == ["waits"]
    with refuses(Reason.INVALID_FIELDS) as refused:
        await names(alice, filter="status=odd AND preset=x AND dormant=perhaps", page_size=-1)
    with refuses(Reason.INVALID_FIELDS):
        await names(alice, filter="colour=red AND name")
    assert refused.fields == ("page_size", "filter", "filter", "filter")


async def test_builds_are_listed_newest_first(claims_service: ClaimsService, database: Database, pool: PoolKey) -> None:
    alice, bob = await claims_service.person("alice"), await claims_service.person("bob")
    created = await alice.create(mode=COLD)
    await end_build(database, JobId(UUID(created.build.job_id)))
    await alice.call("StopWorkspace", pb.StopWorkspaceRequest(id=created.workspace.id))
    request = pb.ListBuildsRequest(organization="acme", workspace_id=created.workspace.id)

    answer = await alice.call("ListBuilds", request)
    filtered = pb.ListBuildsRequest(
        organization="acme", workspace_id=created.workspace.id, filter="transition=start AND status=succeeded"
    )

    assert [build.number for build in answer.builds] == [2, 1]
    assert [build.number for build in (await alice.call("ListBuilds", filtered)).builds] == [1]
    with refuses(Reason.NOT_FOUND):
        await bob.call("ListBuilds", request)


async def test_claims_are_shown_to_their_person_and_to_admins(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)
    alice, bob = await claims_service.person("alice"), await claims_service.person("bob")
    created = await alice.create(preset="small")
    one = claim_service_pb2.GetClaimRequest(id=created.claim.id)
    building = claim_service_pb2.ListClaimsRequest(organization="acme", filter="state=building AND owner=alice")
    over = claim_service_pb2.ListClaimsRequest(organization="acme", filter="unacknowledged=true")

    assert (await alice.call("GetClaim", one)).claim == created.claim
    with refuses(Reason.NOT_FOUND):
        await bob.call("GetClaim", one)
    assert [claim.id for claim in (await alice.call("ListClaims", building)).claims] == [created.claim.id]
    assert list((await bob.call("ListClaims", building)).claims) == []
    assert list((await alice.call("ListClaims", over)).claims) == []
