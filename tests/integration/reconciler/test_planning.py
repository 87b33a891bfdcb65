"""Plans for other moments, retries, and what blocks a pool since when, over gRPC."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import insert, select, update

from prebuilds.chassis.caller import Caller
from prebuilds.domain.builds import BuildOutcome, FailureClass
from prebuilds.domain.ids import PresetId, UserId
from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.principals import Person, Role
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.inspecting import Inspector
from prebuilds.reconciler.queries.pools import Moment, read_moment
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.viewing import Viewing
from prebuilds.reconciler.watching import Watching
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction
from prebuilds.v1 import pool_pb2, template_pb2, template_service_pb2
from prebuilds.v1 import pool_service_pb2 as pb
from tests.support.builders import make_user
from tests.support.reconciling import Client, Reconcilers, Stage, make_manifest, refused
from tests.support.waiting import eventually


async def planned(client: Client, preset_id: str, at: datetime | None = None) -> pb.PlanPoolResponse:
    request = pb.PlanPoolRequest(id=preset_id)
    if at is not None:
        request.plan_time.FromDatetime(at)
    return await client.pools.PlanPool(request, metadata=client.metadata)


async def retried(client: Client, preset_id: str) -> pool_pb2.Pool:
    request = pb.RetryPresetRequest(id=preset_id)
    return (await client.pools.RetryPreset(request, metadata=client.metadata)).pool


def actions(pool: pool_pb2.Pool) -> list[str]:
    return [action.WhichOneof("kind") or "" for action in pool.plan]


def blocks(pool: pool_pb2.Pool) -> list[pool_pb2.BlockKind.ValueType]:
    return [block.kind for block in pool.blocked_by]


async def fail_all(
    stage: Stage, preset_id: str, failure_class: FailureClass = FailureClass.TEMPLATE, *, error: str = ""
) -> None:
    jobs = await eventually(lambda: stage.jobs(preset_id))
    await stage.finish(jobs, BuildOutcome.FAILED, failure_class, error=error)


async def test_a_plan_of_now_is_the_pools(operator: Client, stage: Stage) -> None:
    preset = (await operator.push(make_manifest(instances=2))).presets[0]
    await eventually(lambda: stage.jobs(preset.id))

    answer = await planned(operator, preset.id)
    pool = await operator.pool(preset.id)

    pool.snapshot_time.CopyFrom(answer.pool.snapshot_time)
    assert answer.pool == pool
    assert not answer.can_skip


async def test_a_plan_for_another_moment_goes_by_its_schedules(operator: Client, stage: Stage) -> None:
    now = datetime.now(UTC)
    far = now + timedelta(days=60)
    scheduling = {"timezone": "UTC", "schedule": [{"cron": f"* * * {far.month} *", "instances": 4}]}
    prebuilds = {"instances": 1, "scheduling": scheduling}
    preset = (await operator.push(make_manifest(presets=[{"name": "p", "prebuilds": prebuilds}]))).presets[0]
    await eventually(lambda: stage.jobs(preset.id))

    pool = (await planned(operator, preset.id, far)).pool

    assert (pool.target.instances, pool.target.source) == (4, pool_pb2.TARGET_SOURCE_SCHEDULE)
    assert [action.create.count for action in pool.plan] == [3]
    assert pool.snapshot_time.ToDatetime(UTC) == far
    assert pool.target.next_change_time.ToDatetime(UTC) > far
    assert await stage.states(preset.id) == ["starting"], "a plan changes nothing"


async def test_a_plan_for_another_moment_goes_by_its_ages(operator: Client, stage: Stage) -> None:
    prebuilds = {"instances": 1, "expiration_policy": {"ttl": 3600}}
    preset = (await operator.push(make_manifest(presets=[{"name": "p", "prebuilds": prebuilds}]))).presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    (workspace_id,) = await stage.make_eligible(preset.id)

    now = datetime.now(UTC)
    before = (await planned(operator, preset.id, now + timedelta(minutes=50))).pool
    after = (await planned(operator, preset.id, now + timedelta(minutes=70))).pool

    assert (before.counts.expired, actions(before)) == (0, [])
    assert (after.counts.expired, actions(after)) == (1, ["delete", "create"])
    assert list(after.plan[0].delete.workspace_ids) == [str(workspace_id)]
    assert not (await operator.pool(preset.id)).plan


async def test_a_plan_for_another_moment_goes_by_its_failures(operator: Client, stage: Stage) -> None:
    preset = (await operator.push(make_manifest(instances=1))).presets[0]
    await fail_all(stage, preset.id)
    now = datetime.now(UTC)

    assert actions((await planned(operator, preset.id)).pool) == ["back_off"]
    assert actions((await planned(operator, preset.id, now + timedelta(minutes=2))).pool) == ["create"]
    earlier = (await planned(operator, preset.id, now - timedelta(minutes=5))).pool
    assert (actions(earlier), blocks(earlier)) == (["create"], [])


async def test_a_plan_leaves_a_pause_aside_that_it_shows(operator: Client) -> None:
    request = pb.PauseReconciliationRequest(scope=pool_pb2.PAUSE_SCOPE_DEPLOYMENT)
    await operator.pools.PauseReconciliation(request, metadata=operator.metadata)
    preset = (await operator.push(make_manifest(instances=1))).presets[0]

    pool = (await planned(operator, preset.id)).pool

    assert (actions(pool), blocks(pool)) == (["create"], [pool_pb2.BLOCK_KIND_PAUSED])
    assert not (await operator.pool(preset.id)).plan


async def test_an_inactive_pool_without_anything_left_is_skipped(operator: Client) -> None:
    first = (await operator.push(make_manifest(instances=0))).presets[0]
    await operator.push(make_manifest(instances=0), activate=True)

    answer = await planned(operator, first.id)

    assert answer.can_skip
    assert not answer.pool.plan


async def test_a_moment_more_than_a_year_away_is_refused(operator: Client) -> None:
    preset = (await operator.push()).presets[0]
    now = datetime.now(UTC)
    for at in (now + timedelta(days=367), now - timedelta(days=367)):
        with refused(Reason.INVALID_FIELDS) as caught:
            await planned(operator, preset.id, at)
        assert [violation.field for violation in caught[0].violations] == ["plan_time"]
    assert (await planned(operator, preset.id, now + timedelta(days=365))).pool.target.instances == 3


@pytest.mark.parametrize("moment", [{"seconds": 10**15}, {"seconds": -(10**15)}, {"nanos": -1}, {"seconds": 10**11}])
async def test_what_is_no_moment_is_wrong_once(operator: Client, moment: dict[str, int]) -> None:
    preset = (await operator.push()).presets[0]
    request = pb.PlanPoolRequest(id=preset.id, plan_time=Timestamp(**moment))

    with refused(Reason.INVALID_FIELDS) as caught:
        await operator.pools.PlanPool(request, metadata=operator.metadata)

    assert [violation.field for violation in caught[0].violations] == ["plan_time"]


async def test_how_far_away_a_moment_is_the_database_says(
    operator: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset_id = PresetId(UUID((await operator.push()).presets[0].id))
    inspector = Inspector(database, config=Config(), lookback=timedelta(hours=1))
    viewing = Viewing(database, inspector, Watching(inspector))
    root = Person(UserId(uuid4()), "root", {}, is_operator=True)
    async with database.read("test") as tx:
        here = (await read_moment(tx)).at
    ahead = here + timedelta(days=300)

    async def be_ahead(tx: Transaction) -> Moment:
        return replace(await read_moment(tx), at=ahead)

    monkeypatch.setattr("prebuilds.reconciler.viewing.read_moment", be_ahead)

    with pytest.raises(Refusal) as caught:
        await viewing.plan(Caller(root), preset_id, here - timedelta(days=100))
    assert [violation.field for violation in caught.value.violations] == ["plan_time"]
    assert (await viewing.plan(Caller(root), preset_id, here + timedelta(days=600))).at == here + timedelta(days=600)


async def test_only_members_see_plans_and_retry(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    await operator.make_organization()
    await operator.make_organization("other")
    preset = (await operator.push()).presets[0]
    member = await reconcilers.client(address, operator=False, name="mia", roles=[Role.MEMBER])
    stranger = await reconcilers.client(address, operator=False, name="sam", roles=[Role.OWNER], at="other")

    assert (await planned(member, preset.id)).pool.id == preset.id
    with refused(Reason.PERMISSION_DENIED):
        await retried(member, preset.id)
    for call in (planned, retried):
        with refused(Reason.NOT_FOUND):
            await call(stranger, preset.id)
        with refused(Reason.NOT_FOUND):
            await call(operator, str(uuid4()))


async def test_a_retry_lets_one_prebuild_of_a_hard_limited_preset_through(
    operator: Client, stage: Stage, database: Database
) -> None:
    preset = (await operator.push(make_manifest(instances=3))).presets[0]
    await fail_all(stage, preset.id)
    await operator.reconcile()
    limited = await operator.pool(preset.id)
    assert blocks(limited) == [pool_pb2.BLOCK_KIND_HARD_LIMITED]
    assert limited.status == template_pb2.PRESET_STATUS_HARD_LIMITED
    assert limited.blocked_by[0].since_time == (await operator.pool(preset.id)).blocked_by[0].since_time

    pool = await retried(operator, preset.id)

    assert pool.id == preset.id
    await eventually(lambda: stage.jobs(preset.id), what="tried by the event, without a tick")
    assert len(await stage.jobs(preset.id)) == 1
    async with database.transaction("test") as tx:
        log = schema.AuditEvent
        names = select(log.resource_name).where(log.action == "preset.retry")
        assert (await tx.execute(names)).scalars().all() == ["python-dev/small"]


async def test_a_retry_does_nothing_to_a_preset_that_is_not_hard_limited(operator: Client, database: Database) -> None:
    preset = (await operator.push()).presets[0]

    pool = await retried(operator, preset.id)

    assert pool.status == template_pb2.PRESET_STATUS_HEALTHY
    async with database.transaction("test") as tx:
        asked = select(schema.Preset.retry_requested_at).where(schema.Preset.id == UUID(preset.id))
        assert await tx.scalar(asked) is None
        assert (
            await tx.execute(select(schema.AuditEvent.id).where(schema.AuditEvent.action == "preset.retry"))
        ).all() == []


async def test_a_retry_does_nothing_to_an_inactive_pool_and_says_that_it_is_inactive(
    operator: Client, stage: Stage, database: Database
) -> None:
    pushed = await operator.push(make_manifest(instances=3))
    preset = pushed.presets[0]
    await fail_all(stage, preset.id)
    await operator.reconcile()
    assert (await operator.pool(preset.id)).active
    request = template_service_pb2.DeleteTemplateRequest(id=pushed.template.id)
    await operator.templates.DeleteTemplate(request, metadata=operator.metadata)

    pool = await retried(operator, preset.id)

    assert (pool.active, pool.status, blocks(pool)) == (False, template_pb2.PRESET_STATUS_HARD_LIMITED, [])
    async with database.read("test") as tx:
        asked = select(schema.Preset.retry_requested_at).where(schema.Preset.id == UUID(preset.id))
        assert await tx.scalar(asked) is None


async def test_a_hard_limit_tells_the_error_of_the_newest_retry(operator: Client, stage: Stage) -> None:
    preset = (await operator.push(make_manifest(instances=3))).presets[0]
    await fail_all(stage, preset.id, error="no such image")
    (unseen,) = (await operator.pool(preset.id)).blocked_by
    await operator.reconcile()
    (first,) = (await operator.pool(preset.id)).blocked_by
    await retried(operator, preset.id)

    await fail_all(stage, preset.id, error="password=hunter2 is wrong")

    (newest,) = (await operator.pool(preset.id)).blocked_by
    assert (unseen.detail, first.detail, newest.since_time) == ("no such image", "no such image", first.since_time)
    assert newest.detail.endswith("is wrong")
    assert "hunter2" not in newest.detail
    get = template_service_pb2.GetPresetRequest(id=preset.id)
    read = (await operator.templates.GetPreset(get, metadata=operator.metadata)).preset
    assert read.status_detail == newest.detail


async def test_a_backoff_is_since_the_last_failure(operator: Client, stage: Stage, database: Database) -> None:
    preset = (await operator.push(make_manifest(instances=1))).presets[0]
    await fail_all(stage, preset.id, FailureClass.INFRASTRUCTURE)

    (block,) = (await operator.pool(preset.id)).blocked_by

    async with database.transaction("test") as tx:
        failed_at = await tx.scalar(select(schema.Build.created_at).where(schema.Build.preset_id == UUID(preset.id)))
    assert failed_at is not None
    assert block.kind == pool_pb2.BLOCK_KIND_BACKING_OFF
    assert block.since_time.ToDatetime(UTC) == failed_at
    assert block.until_time.ToDatetime(UTC) == failed_at + timedelta(minutes=1)


@pytest.mark.parametrize(
    "status",
    [
        (PresetStatus.VALIDATION_FAILED, pool_pb2.BLOCK_KIND_VALIDATION_FAILED),
        (PresetStatus.HARD_LIMITED, pool_pb2.BLOCK_KIND_HARD_LIMITED),
    ],
    ids=lambda status: status[0].value,
)
async def test_a_status_blocks_since_it_was_set_and_says_why(
    operator: Client, database: Database, status: tuple[PresetStatus, pool_pb2.BlockKind.ValueType]
) -> None:
    stored, kind = status
    preset = (await operator.push()).presets[0]
    since = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    async with database.transaction("test") as tx:
        row = update(schema.Preset).where(schema.Preset.id == UUID(preset.id))
        await tx.execute(row.values(status=stored, status_message="size has no value", status_since=since))

    (block,) = (await operator.pool(preset.id)).blocked_by

    assert (block.kind, block.since_time.ToDatetime(UTC), block.detail) == (kind, since, "size has no value")


async def test_max_starting_blocks_since_the_newest_is_starting(
    operator: Client, stage: Stage, database: Database
) -> None:
    template = template_pb2.Template(name="python-dev", max_starting=1)
    request = template_service_pb2.CreateTemplateRequest(organization="acme", template=template)
    await operator.templates.CreateTemplate(request, metadata=operator.metadata)
    preset = (await operator.push(make_manifest(instances=2), activate=True)).presets[0]
    await eventually(lambda: stage.jobs(preset.id))

    (block,) = (await operator.pool(preset.id)).blocked_by

    async with database.transaction("test") as tx:
        queued_at = await tx.scalar(select(schema.Prebuild.created_at))
    assert queued_at is not None
    assert block.kind == pool_pb2.BLOCK_KIND_MAX_STARTING
    assert block.since_time.ToDatetime(UTC) == queued_at


async def test_a_pool_over_quota_shows_since_when(operator: Client, stage: Stage, database: Database) -> None:
    preset = (await operator.push(make_manifest(instances=1))).presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    await stage.make_eligible(preset.id)
    async with database.transaction("test") as tx:
        group = schema.Group
        await tx.execute(update(group).where(group.name == "prebuilds").values(quota_allowance=5))
        await tx.execute(update(schema.Build).values(daily_cost=5))
        await tx.execute(update(schema.Prebuild).values(daily_cost=5))
        await tx.execute(update(schema.Preset).values(desired_instances=2))
    await operator.reconcile()

    pool = await operator.pool(preset.id)

    assert blocks(pool) == [pool_pb2.BLOCK_KIND_OVER_QUOTA]
    assert not pool.plan
    async with database.transaction("test") as tx:
        since = await tx.scalar(select(schema.Preset.over_quota_since))
    assert since is not None
    assert pool.blocked_by[0].since_time.ToDatetime(UTC) == since


async def test_who_waits_is_counted_while_the_lease_lasts(operator: Client, database: Database) -> None:
    preset = (await operator.push()).presets[0]
    now = datetime.now(UTC)
    async with database.transaction("test") as tx:
        place = {
            "organization_id": UUID(preset.organization_id),
            "preset_id": UUID(preset.id),
            "user_id": await make_user(database),
        }
        await tx.execute(
            insert(schema.Waiting).values(
                [
                    {**place, "request_id": "a", "lease_expires_at": now + timedelta(hours=1)},
                    {**place, "request_id": "b", "lease_expires_at": now - timedelta(hours=1)},
                ]
            )
        )

    assert (await operator.pool(preset.id)).counts.waiting == 1


@pytest.mark.parametrize("ending", ["DeprecateTemplate", "DeleteTemplate"])
async def test_the_pool_of_a_template_that_ended_is_shown_while_it_drains(
    operator: Client, stage: Stage, ending: str
) -> None:
    pushed = await operator.push(make_manifest(instances=1))
    preset = pushed.presets[0]
    await eventually(lambda: stage.jobs(preset.id))
    await stage.make_eligible(preset.id)
    if ending == "DeleteTemplate":
        delete = template_service_pb2.DeleteTemplateRequest(id=pushed.template.id)
        await operator.templates.DeleteTemplate(delete, metadata=operator.metadata)
    else:
        deprecate = template_service_pb2.DeprecateTemplateRequest(id=pushed.template.id, message="use the other")
        await operator.templates.DeprecateTemplate(deprecate, metadata=operator.metadata)

    await stage.until_states(preset.id, "deleting")
    pool = await operator.pool(preset.id)
    listing = pb.ListPoolsRequest(organization="acme", filter="active=false")
    listed = (await operator.pools.ListPools(listing, metadata=operator.metadata)).pools

    assert (pool.active, pool.target.source, pool.counts.deleting) == (False, pool_pb2.TARGET_SOURCE_INACTIVE, 1)
    assert [each.id for each in listed] == [preset.id]
    assert (await planned(operator, preset.id)).can_skip
