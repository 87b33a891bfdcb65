"""Creating: modes, misses, parameters, names and request ids."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from sqlalchemy import insert, select, update

from prebuilds.domain.ids import OrganizationId
from prebuilds.domain.pools import PoolEventKind, PresetStatus
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.v1 import claim_pb2, reason_pb2, workspace_pb2
from prebuilds.v1 import workspace_service_pb2 as pb
from tests.support.builders import make_organization
from tests.support.claims import (
    ClaimsService,
    change,
    change_prebuild,
    make_sized_pool,
    pooled,
    ready_prebuilds,
    refuses,
    rows,
)
from tests.support.waiting import until_waiting

HIT = claim_pb2.CREATION_OUTCOME_HIT
MISS = claim_pb2.CREATION_OUTCOME_MISS
COLD = claim_pb2.CLAIM_MODE_COLD
REQUIRE_WARM = claim_pb2.CLAIM_MODE_REQUIRE_WARM


async def test_a_cold_build_has_every_parameter_a_job_and_agents(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    answer = await (await claims_service.person()).create(parameters={"region": "us"}, mode=COLD, name="mine")

    assert (answer.outcome, answer.miss_reason) == (MISS, reason_pb2.REASON_REQUESTED_COLD)
    assert not answer.HasField("claim")
    assert answer.workspace.status == workspace_pb2.WORKSPACE_STATUS_PENDING
    assert [agent.name for agent in answer.workspace.agents] == ["main"]
    assert answer.build.job_id
    assert (answer.build.number, answer.build.reason) == (1, workspace_pb2.BUILD_REASON_USER)
    assert dict(answer.build.parameters) == {
        "size": "small",
        "region": "us",
        "dotfiles": "",
        "cpus": "2",
        "debug": "false",
    }
    (event,) = await rows(database, schema.PoolEvent)
    assert (event.kind, event.reason, str(event.workspace_id)) == ("missed", "requested_cold", answer.workspace.id)
    (deed,) = await rows(database, schema.AuditEvent)
    assert (deed.action, str(deed.resource_id)) == ("workspace.create", answer.workspace.id)


async def test_cold_leaves_the_prebuilds_to_others(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)

    assert (await (await claims_service.person()).create(preset="small", mode=COLD)).outcome == MISS

    assert await pooled(database, pool) == 1


async def test_a_preset_is_found_by_parameters(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)

    answer = await (await claims_service.person()).create(parameters={"size": "small", "dotfiles": "mine"})

    assert answer.outcome == HIT
    assert answer.build.preset_name == "small"


@pytest.mark.parametrize("by", ["name", "id"])
async def test_everything_can_be_named_by_id_too(
    by: str, claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)
    names = {"organization": "acme", "template": "python-dev", "preset": "small"}
    ids = {
        "organization": str(pool.organization_id),
        "template": str(pool.template_id),
        "preset": str(pool.preset_id),
    }

    assert (await (await claims_service.person()).create(**(ids if by == "id" else names))).outcome == HIT


async def _no_pool(database: Database, pool: PoolKey) -> None:
    await change(database, schema.Preset, pool.preset_id, desired_instances=None)


async def _rotating(database: Database, pool: PoolKey) -> None:
    (old,) = await ready_prebuilds(database, pool)
    version_id = uuid4()
    async with database.transaction("test") as tx:
        columns = [column for column in schema.TemplateVersion.__table__.columns if column.computed is None]
        (version,) = (await tx.execute(select(*columns))).mappings().all()
        values = {**version, "id": version_id, "number": 2, "name": "2"}
        await tx.execute(insert(schema.TemplateVersion).values(values))
    await change_prebuild(database, old, version_id=version_id, preset_id=uuid4(), ready_at=None)


async def _unready(database: Database, pool: PoolKey) -> None:
    (prebuild,) = await ready_prebuilds(database, pool)
    await change_prebuild(database, prebuild, ready_at=None)


async def _pause_all(database: Database, pool: PoolKey) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(insert(schema.Setting).values(key="reconciliation_pause", value={}))


MISSES: dict[str, tuple[Callable[[Database, PoolKey], Awaitable[object]], Reason]] = {
    "no pool": (_no_pool, Reason.NO_POOL),
    "invalid": (
        lambda database, pool: change(database, schema.Preset, pool.preset_id, status=PresetStatus.VALIDATION_FAILED),
        Reason.VALIDATION_FAILED,
    ),
    "hard limited": (
        lambda database, pool: change(database, schema.Preset, pool.preset_id, status=PresetStatus.HARD_LIMITED),
        Reason.HARD_LIMITED,
    ),
    "preset paused": (
        lambda database, pool: change(database, schema.Preset, pool.preset_id, paused_at=datetime.now(UTC)),
        Reason.PAUSED,
    ),
    "template paused": (
        lambda database, pool: change(database, schema.Template, pool.template_id, paused_at=datetime.now(UTC)),
        Reason.PAUSED,
    ),
    "all paused": (_pause_all, Reason.PAUSED),
    "rotating": (_rotating, Reason.ROTATING),
    "none ready": (_unready, Reason.NONE_READY),
    "empty": (lambda database, pool: asyncio.sleep(0), Reason.POOL_EMPTY),
}


@pytest.mark.parametrize("how", MISSES)
async def test_a_miss_says_why_and_is_built_cold_or_refused(
    how: str, claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    arrange, reason = MISSES[how]
    await arrange(database, pool)
    alice = await claims_service.person()

    answer = await alice.create(preset="small")
    with refuses(reason) as refused:
        await alice.create(preset="small", mode=REQUIRE_WARM)

    assert answer.outcome == MISS
    assert reason_pb2.Reason.Name(answer.miss_reason) == f"REASON_{reason}"
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.refused is not None
    assert refused.refused.retries is (reason not in {Reason.NO_POOL, Reason.VALIDATION_FAILED})
    events = await rows(database, schema.PoolEvent, kind=PoolEventKind.MISSED)
    assert [event.reason for event in events] == [reason.lower()] * 2
    assert len(await rows(database, schema.Workspace, owner_id=UUID(answer.workspace.owner_id))) == 1


async def test_no_preset_fits(claims_service: ClaimsService, pool: PoolKey) -> None:
    alice = await claims_service.person()

    answer = await alice.create(parameters={"size": "large"})
    with refuses(Reason.NO_MATCHING_PRESET) as refused:
        await alice.create(mode=REQUIRE_WARM)

    assert refused.refused is not None
    assert not refused.refused.retries
    assert answer.miss_reason == reason_pb2.REASON_NO_MATCHING_PRESET
    assert answer.build.preset_id == ""


async def test_a_found_preset_does_not_fit_where_its_prebuilds_cannot_have_an_immutable_value(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool)

    answer = await (await claims_service.person()).create(parameters={"size": "small", "region": "us"})

    assert answer.miss_reason == reason_pb2.REASON_NO_MATCHING_PRESET
    assert answer.build.parameters["region"] == "us"


async def test_all_that_is_wrong_with_parameters_is_told_at_once(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    async with database.transaction("test") as tx:
        await tx.execute(
            update(schema.TemplateParameter).where(schema.TemplateParameter.name == "debug").values(default_value=None)
        )

    with refuses(Reason.INVALID_FIELDS) as refused:
        await (await claims_service.person()).create(
            preset="small", parameters={"size": "large", "region": "us", "cpus": "many", "nope": "x"}
        )

    assert set(refused.fields) == {f"parameters.{name}" for name in ("size", "region", "cpus", "nope", "debug")}
    assert await rows(database, schema.Workspace) == []


async def test_names_that_nothing_can_have_are_not_looked_up(claims_service: ClaimsService, pool: PoolKey) -> None:
    names = dict.fromkeys(("organization", "template", "preset", "owner"), "x" * 10_000)

    with refuses(Reason.INVALID_FIELDS) as refused:
        await (await claims_service.person()).create(**names)

    assert set(refused.fields) == set(names)


async def test_all_that_is_wrong_with_a_request_is_told_at_once(claims_service: ClaimsService, pool: PoolKey) -> None:
    with refuses(Reason.INVALID_FIELDS) as refused:
        await (await claims_service.person()).create(
            organization="",
            template="",
            name="Not A Name",
            ttl=timedelta(seconds=1),
            autostart_schedule="whenever",
            request_id="\n",
            mode=77,
        )

    assert set(refused.fields) == {
        "organization",
        "template",
        "name",
        "ttl",
        "autostart_schedule",
        "request_id",
        "mode",
    }


async def test_waiting_is_not_built_yet(claims_service: ClaimsService, pool: PoolKey) -> None:
    alice = await claims_service.person()

    with refuses(Reason.METHOD_NOT_BUILT):
        await alice.create(mode=claim_pb2.CLAIM_MODE_WAIT)
    answer = await alice.create(mode=claim_pb2.CLAIM_MODE_WAIT, preset="small", validate_only=True)

    assert answer.outcome == claim_pb2.CREATION_OUTCOME_MISS


@pytest.mark.parametrize(
    "wanted, kind",
    [
        ({"organization": "nobody"}, "organization"),
        ({"template": "nope"}, "template"),
        ({"template": str(uuid4())}, "template"),
        ({"preset": "nope"}, "preset"),
    ],
)
async def test_what_does_not_exist_is_not_found(
    wanted: dict[str, str], kind: str, claims_service: ClaimsService, pool: PoolKey
) -> None:
    with refuses(Reason.NOT_FOUND) as refused:
        await (await claims_service.person()).create(**wanted)

    assert refused.refused is not None
    assert refused.refused.resource == kind


async def test_another_organisations_things_do_not_exist(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    other = await make_organization(database, "other")
    theirs = await make_sized_pool(database, other, template="theirs")
    alice = await claims_service.person()

    with refuses(Reason.NOT_FOUND):
        await alice.create(organization="other", template="theirs")
    with refuses(Reason.NOT_FOUND):
        await alice.create(template=str(theirs.template_id))


async def test_a_deprecated_template_and_one_without_a_version_are_refused(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    await change(database, schema.Template, pool.template_id, active_version_id=None)
    with refuses(Reason.NO_ACTIVE_VERSION):
        await alice.create()
    await change(database, schema.Template, pool.template_id, deprecated="use go-dev")
    with refuses(Reason.TEMPLATE_DEPRECATED) as refused:
        await alice.create()
    assert refused.refused is not None
    assert refused.refused.metadata["message"] == "use go-dev"


async def test_only_owners_create_in_anothers_name(
    claims_service: ClaimsService, database: Database, acme: OrganizationId, pool: PoolKey
) -> None:
    alice = await claims_service.person("alice")
    boss = await claims_service.person("boss", Role.OWNER)
    alice_id = UUID((await alice.create(mode=COLD)).workspace.owner_id)
    async with database.transaction("test") as tx:
        await tx.execute(
            insert(schema.OrganizationMember).values(organization_id=acme, user_id=alice_id, roles=["member"])
        )

    made = await boss.create(mode=COLD, owner="alice")
    with refuses(Reason.PERMISSION_DENIED):
        await alice.create(mode=COLD, owner="boss")
    with refuses(Reason.NOT_FOUND):
        await boss.create(mode=COLD, owner="stranger")

    assert (made.workspace.owner_name, made.build.initiator_name) == ("alice", "boss")


@pytest.mark.parametrize("warm", [True, False])
async def test_the_same_request_gets_the_same_answer(
    warm: bool, claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool, 2 if warm else 0)
    alice = await claims_service.person()

    first = await alice.create(preset="small", request_id="one")
    second = await alice.create(preset="small", request_id="one")

    assert first == second
    assert await pooled(database, pool) == (1 if warm else 0)
    assert len([event for event in await rows(database, schema.PoolEvent) if event.kind != "created"]) == 1


@pytest.mark.parametrize("warm", [True, False])
async def test_the_same_request_at_once_gets_one_workspace(
    warm: bool, claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    await ready_prebuilds(database, pool, 3 if warm else 0)
    alice = await claims_service.person()

    answers = await asyncio.gather(*(alice.create(preset="small", request_id="one") for _ in range(6)))

    assert len({answer.workspace.id for answer in answers}) == 1
    assert len({answer.build.id for answer in answers}) == 1


async def test_the_first_answer_is_given_even_when_the_template_is_gone(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    first = await alice.create(request_id="one")
    await change(database, schema.Template, pool.template_id, deleted=True)

    assert (await alice.create(request_id="one")).workspace.id == first.workspace.id


async def test_a_request_id_is_no_good_for_another_request(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice, bob = await claims_service.person("alice"), await claims_service.person("bob")
    await alice.create(request_id="one", name="mine")

    with refuses(Reason.REQUEST_ID_REUSED) as refused:
        await alice.create(request_id="one", name="other")

    assert refused.code == grpc.StatusCode.ALREADY_EXISTS
    assert (await bob.create(request_id="one", name="other")).workspace.owner_name == "bob"
    async with database.transaction("test") as tx:
        await tx.run(b"UPDATE requests SET created_at = now() - interval '25 hours'")
    assert (await alice.create(request_id="one", name="other")).workspace.name == "other"


async def test_a_refused_miss_is_not_kept_but_counted_once(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    for _ in range(2):
        with refuses(Reason.POOL_EMPTY):
            await alice.create(preset="small", mode=REQUIRE_WARM, request_id="one")
    await ready_prebuilds(database, pool)

    assert (await alice.create(preset="small", mode=REQUIRE_WARM, request_id="one")).outcome == HIT
    assert len(await rows(database, schema.PoolEvent, kind=PoolEventKind.MISSED)) == 1


async def test_validate_only_tells_and_changes_nothing(
    claims_service: ClaimsService, database: Database, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    miss = await alice.create(preset="small", name="mine", validate_only=True)
    await ready_prebuilds(database, pool)
    hit = await alice.create(preset="small", name="mine", validate_only=True)
    with refuses(Reason.INVALID_FIELDS):
        await alice.create(preset="small", parameters={"cpus": "many"}, validate_only=True)

    assert (miss.outcome, miss.miss_reason) == (MISS, reason_pb2.REASON_POOL_EMPTY)
    assert (hit.outcome, hit.workspace.id, hit.workspace.name) == (HIT, "", "mine")
    assert await pooled(database, pool) == 1
    assert await rows(database, schema.Request) == []


async def test_a_name_is_made_from_the_templates(claims_service: ClaimsService, pool: PoolKey) -> None:
    answer = await (await claims_service.person()).create()

    template, _, suffix = answer.workspace.name.rpartition("-")
    assert (template, len(suffix)) == ("python-dev", 6)


@pytest.mark.parametrize("authorization", [None, "Bearer nonsense", "Basic x"])
async def test_nobody_gets_in_without_a_good_token(
    authorization: str | None, claims_service: ClaimsService, pool: PoolKey
) -> None:
    stranger = await claims_service.caller(authorization)

    with refuses(Reason.CREDENTIALS_INVALID if authorization else Reason.CREDENTIALS_MISSING) as refused:
        await stranger.create()

    assert refused.code == grpc.StatusCode.UNAUTHENTICATED


async def test_what_is_not_built_says_so(claims_service: ClaimsService, pool: PoolKey) -> None:
    with refuses(Reason.METHOD_NOT_BUILT):
        await (await claims_service.person()).call("BatchCreateWorkspaces", pb.BatchCreateWorkspacesRequest())


async def test_a_cold_build_locks_its_requests_before_anything_else(
    claims_service: ClaimsService, database_url: str, pool: PoolKey
) -> None:
    alice = await claims_service.person()
    async with (
        await psycopg.AsyncConnection.connect(database_url) as holder,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
    ):
        await alice.create(mode=claim_pb2.CLAIM_MODE_COLD, request_id="one")
        await holder.execute("UPDATE requests SET created_at = now() - interval '2 days'")
        await holder.commit()
        await holder.execute("SELECT FROM requests WHERE method = 'CreateWorkspace/missed' FOR UPDATE")

        again = asyncio.create_task(alice.create(mode=claim_pb2.CLAIM_MODE_COLD, request_id="one"))
        (pid,) = await until_waiting(observer)
        cursor = await observer.execute(
            "SELECT relation::regclass::text FROM pg_locks WHERE pid = %s AND mode = 'RowExclusiveLock'", [pid]
        )
        written = {name for (name,) in await cursor.fetchall() if name in {"requests", "workspaces", "builds", "jobs"}}
        await holder.rollback()
        await again

    assert written == {"requests"}
