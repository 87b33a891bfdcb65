"""What stops a pool from being filled, and what heals it: hard limit, retry, invalid presets, failure classes."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import func, insert, select, update

from prebuilds.domain.agents import AgentState
from prebuilds.domain.builds import BackendKind, BuildOutcome, FailureClass, JobStatus, Transition
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import PresetId, VersionId, WorkspaceId
from prebuilds.domain.pools import PresetStatus
from prebuilds.provisioner.rules.lost_jobs import Patience
from prebuilds.provisioner.sweeps import sweep
from prebuilds.reconciler.queries.pools import Extent
from prebuilds.reconciler.rules.planner import Config
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.pool.locks import lock_prebuild_and_workspace
from prebuilds.store.pool.readiness import refresh_readiness
from prebuilds.v1 import pool_service_pb2, template_pb2
from tests.support.builders import claim_prebuild, make_organization, make_pool, make_user
from tests.support.pools import IMPATIENT, Passes, pools_told_of
from tests.support.reconciling import Client, Reconcilers, Stage, make_manifest
from tests.support.waiting import eventually

HEALTHY, HARD_LIMITED, INVALID = PresetStatus.HEALTHY, PresetStatus.HARD_LIMITED, PresetStatus.VALIDATION_FAILED
PATIENCE = Patience(cancel_grace=timedelta(minutes=1), longest_wait=timedelta(minutes=30), max_attempts=3)


@pytest_asyncio.fixture
async def passes(database: Database) -> Passes:
    """Passes over one pool of one prebuild."""
    pool = await make_pool(database, await make_organization(database), instances=1)
    return Passes(database, pool)


async def ask_again(passes: Passes) -> None:
    """What RetryPreset stores."""
    async with passes.database.transaction("test") as tx:
        await tx.run(
            b"UPDATE presets SET retry_requested_at = clock_timestamp() WHERE id = %(id)s",
            {"id": passes.pool.preset_id},
        )


async def report(passes: Passes, workspace_id: WorkspaceId, state: AgentState) -> None:
    """The agent of a prebuild has come this far."""
    async with passes.database.transaction("test") as tx:
        await lock_prebuild_and_workspace(tx, workspace_id)
        agents = update(schema.Agent).where(schema.Agent.workspace_id == workspace_id)
        await tx.execute(agents.values(state=state))
        await refresh_readiness(tx, [workspace_id])


async def test_three_faults_in_a_row_limit_the_preset_and_tell_its_admins_once(passes: Passes) -> None:
    told: list[tuple[EventKind, UUID]] = []
    passes.database.on_commit(lambda rows: told.extend((row.event, row.subject_id) for row in rows))
    for number in range(3):
        assert (await passes.run()).created == 1
        await passes.fail(error=f"startup.sh: no such file ({number})")

    limiting = await passes.run()
    after = [await passes.run() for _ in range(3)]

    assert (limiting.reconciled, limiting.created) == (1, 0)
    assert [each.reconciled for each in after] == [0, 0, 0]
    preset = await passes.preset()
    assert (preset.status, preset.status_message) == (HARD_LIMITED, "startup.sh: no such file (2)")
    assert preset.status_since >= limiting.started_at
    ((role, kind, subject, title, body),) = await passes.notifications()
    assert (role, kind, subject) == ("template-admin", "preset_hard_limited", passes.pool.preset_id)
    assert "small" in title
    assert "startup.sh: no such file (2)" in body
    assert [event for event, _ in told].count(EventKind.NOTIFICATION) == 1


async def test_a_status_is_set_although_the_pool_wants_nothing(passes: Passes) -> None:
    for _ in range(3):
        await passes.run()
        await passes.fail()
    await passes.set_preset(desired_instances=0)

    assert (await passes.run()).reconciled == 1

    assert (await passes.preset()).status is HARD_LIMITED
    assert (await passes.run()).reconciled == 0


async def test_faults_count_for_the_hard_limit_however_old_they_are(passes: Passes) -> None:
    for _ in range(3):
        await passes.run()
        await passes.fail()
    await passes.make_older(timedelta(days=2))

    assert (await passes.run()).created == 0

    assert (await passes.preset()).status is HARD_LIMITED


async def test_the_error_that_people_see_is_short_and_holds_no_secret(passes: Passes) -> None:
    for _ in range(3):
        await passes.run()
        await passes.fail(error="refused pba_k1_0123456789abcdef from postgres://me:hush@db " + "x" * 9000)
    await passes.run()

    message = (await passes.preset()).status_message
    ((_, _, _, _, body),) = await passes.notifications()

    assert len(message) == 1000
    for text in (message, body):
        assert "hush" not in text
        assert "0123456789abcdef" not in text


@pytest.mark.parametrize("limit, stops", [(0, False), (1, True), (2, True), (4, False)])
async def test_as_many_faults_as_the_limit_says_stop_a_pool(passes: Passes, limit: int, stops: bool) -> None:
    passes.config = Config(backoff_interval=timedelta(0), hard_limit=limit)
    for _ in range(min(limit or 3, 3)):
        await passes.run()
        await passes.fail()

    statistics = await passes.run()

    assert ((await passes.preset()).status is HARD_LIMITED) == stops
    assert statistics.created == (0 if stops else 1)


async def test_deletes_go_on_while_a_preset_is_hard_limited(passes: Passes) -> None:
    await passes.run()
    await passes.end()
    await passes.set_preset(desired_instances=2)
    await passes.fail_until_limited()
    await passes.set_preset(desired_instances=0)

    statistics = await passes.run()

    assert (await passes.preset()).status is HARD_LIMITED
    assert (statistics.deleted, statistics.created) == (1, 0)


async def test_of_prebuilds_queued_together_one_that_comes_up_keeps_the_preset_healthy(passes: Passes) -> None:
    await passes.set_preset(desired_instances=4)
    await passes.run()
    await passes.end(most=1)
    await passes.fail()

    await passes.run()

    assert (await passes.preset()).status is HEALTHY


async def test_what_is_still_starting_may_yet_come_up(passes: Passes) -> None:
    passes.config = Config(backoff_interval=timedelta(minutes=10))
    await passes.set_preset(desired_instances=4)
    await passes.run()
    await passes.end(BuildOutcome.FAILED, FailureClass.TEMPLATE, most=3)
    await passes.run()
    assert (await passes.preset()).status is HEALTHY

    await passes.end(BuildOutcome.FAILED, FailureClass.TEMPLATE, most=1)
    await passes.run()

    assert (await passes.preset()).status is HARD_LIMITED


async def test_faults_with_another_end_between_them_are_not_in_a_row(passes: Passes) -> None:
    for failure_class in (FailureClass.TEMPLATE, FailureClass.TEMPLATE, FailureClass.INFRASTRUCTURE):
        await passes.run()
        await passes.fail(failure_class)
    await passes.run()
    await passes.fail()

    assert (await passes.run()).created == 1

    assert (await passes.preset()).status is HEALTHY


async def test_canceled_builds_count_for_nothing(passes: Passes) -> None:
    passes.config = Config(backoff_interval=timedelta(minutes=10))
    await passes.run()
    await passes.end(BuildOutcome.CANCELED)
    replaced = await passes.run()
    assert (replaced.created, replaced.backing_off) == (1, 0)

    # They stand in nobody's way: not between faults, and not between a failure and the backoff after it.
    passes.config = IMPATIENT
    for _ in range(3):
        await passes.fail()
        await passes.run()
        await passes.end(BuildOutcome.CANCELED)
        await passes.run()

    assert (await passes.preset()).status is HARD_LIMITED


async def test_a_canceled_build_does_not_end_the_backoff(passes: Passes) -> None:
    await passes.run()
    await passes.fail(FailureClass.INFRASTRUCTURE)
    await passes.run()
    await passes.end(BuildOutcome.CANCELED)

    passes.config = Config(backoff_interval=timedelta(minutes=10))

    assert (await passes.run()).backing_off == 1


async def test_an_outage_of_all_daemons_limits_nothing(passes: Passes) -> None:
    await passes.set_preset(desired_instances=3)
    for _ in range(2):
        assert (await passes.run()).created == 3
        await set_jobs(passes, created_at=-timedelta(minutes=31))
        assert (await sweep(passes.database, PATIENCE)).failed == 3
    for _ in range(2):
        assert (await passes.run()).created == 3
        lost = -timedelta(minutes=1)
        await set_jobs(passes, status="running", attempt=3, lease_id=uuid4(), lease_expires_at=lost)
        assert (await sweep(passes.database, PATIENCE)).failed == 3

    statistics = await passes.run()

    assert statistics.created == 3
    assert (await passes.preset()).status is HEALTHY
    assert await passes.notifications() == []
    failures = [reason for kind, reason in await passes.history() if kind == "failed"]
    assert len(failures) == 12


async def test_an_outage_is_waited_out_by_backoff(passes: Passes) -> None:
    passes.config = Config(backoff_interval=timedelta(minutes=30))
    await passes.run()
    await set_jobs(passes, created_at=-timedelta(minutes=31))
    await sweep(passes.database, PATIENCE)

    statistics = await passes.run()

    assert (statistics.created, statistics.backing_off) == (0, 1)


async def set_jobs(passes: Passes, **values: object) -> None:
    """Change the jobs that wait; durations count from now."""
    row = schema.Job
    given = {name: func.now() + value if isinstance(value, timedelta) else value for name, value in values.items()}
    async with passes.database.transaction("test") as tx:
        await tx.execute(update(row).where(row.status == JobStatus.PENDING).values(**given))


async def test_a_retry_lets_one_through_whose_success_heals_the_preset(passes: Passes) -> None:
    await passes.set_preset(desired_instances=2)
    await passes.fail_until_limited()
    passes.config = Config(backoff_interval=timedelta(minutes=10))
    assert (await passes.run()).created == 0
    await ask_again(passes)

    assert [(await passes.run()).created for _ in range(3)] == [1, 0, 0]
    (trial,) = await passes.end()
    assert (await passes.run()).reconciled == 0, "its startup may yet fail"
    await report(passes, trial, AgentState.READY)
    passes.config = IMPATIENT
    healed = await passes.run()

    assert (healed.reconciled, healed.created) == (1, 1)
    preset = await passes.preset()
    assert (preset.status, preset.status_message) == (HEALTHY, "")
    assert ("created", "retry") in await passes.history()
    assert (await passes.run()).reconciled == 0


async def test_a_retry_whose_prebuild_was_claimed_at_once_succeeded(passes: Passes) -> None:
    await passes.fail_until_limited()
    await ask_again(passes)
    await passes.run()
    await passes.stage.make_eligible(passes.preset_id)
    await claim_prebuild(passes.database, passes.pool, await make_user(passes.database))

    assert (await passes.run()).created == 1

    assert (await passes.preset()).status is HEALTHY


async def test_a_retry_that_fails_again_leaves_the_preset_limited_and_tells_nobody_again(passes: Passes) -> None:
    await passes.fail_until_limited()
    since = (await passes.preset()).status_since
    await ask_again(passes)
    assert (await passes.run()).created == 1

    await passes.fail()

    assert [(await passes.run()).reconciled for _ in range(2)] == [0, 0]
    preset = await passes.preset()
    assert (preset.status, preset.status_since) == (HARD_LIMITED, since)
    assert len(await passes.notifications()) == 1


async def test_a_preset_that_is_limited_anew_is_not_healed_by_the_retry_before(passes: Passes) -> None:
    await passes.fail_until_limited()
    await ask_again(passes)
    await passes.run()
    await passes.stage.make_eligible(passes.preset_id)
    await claim_prebuild(passes.database, passes.pool, await make_user(passes.database))
    await passes.run()
    await passes.fail()
    await passes.fail_until_limited()
    assert len(await passes.notifications()) == 2

    passes.config = Config(backoff_interval=timedelta(0), hard_limit=5)
    assert (await passes.run()).reconciled == 0

    assert (await passes.preset()).status is HARD_LIMITED


async def test_a_retry_whose_startup_fails_does_not_make_the_preset_healthy_meanwhile(passes: Passes) -> None:
    await passes.fail_until_limited()
    await ask_again(passes)
    await passes.run()
    (trial,) = await passes.end()
    assert (await passes.run()).reconciled == 0
    async with passes.database.transaction("test") as tx:
        builds = update(schema.Build).where(schema.Build.workspace_id == trial)
        await tx.execute(builds.values(outcome=BuildOutcome.FAILED, failure_class=FailureClass.TEMPLATE))
        rows = update(schema.Prebuild).where(schema.Prebuild.workspace_id == trial)
        await tx.execute(rows.values(state="failed"))

    assert (await passes.run()).created == 0

    assert (await passes.preset()).status is HARD_LIMITED


async def test_a_retry_waits_for_what_is_starting(passes: Passes) -> None:
    await passes.fail_until_limited()
    await passes.set_preset(desired_instances=3)
    await ask_again(passes)
    assert (await passes.run()).created == 1
    await ask_again(passes)

    assert (await passes.run()).created == 0
    await passes.fail()
    await ask_again(passes)

    assert (await passes.run()).created == 1


async def test_a_retry_that_the_infrastructure_ended_is_still_owed(passes: Passes) -> None:
    await passes.fail_until_limited()
    await ask_again(passes)
    await passes.run()
    await passes.fail(FailureClass.INFRASTRUCTURE)

    passes.config = Config(backoff_interval=timedelta(minutes=10))
    assert [(each := await passes.run()).created, each.backing_off] == [0, 1]
    passes.config = IMPATIENT
    assert (await passes.run()).created == 1
    assert (await passes.preset()).status is HARD_LIMITED


async def test_the_reconciler_hears_when_the_prebuild_of_a_retry_is_ready(passes: Passes) -> None:
    await passes.fail_until_limited()
    await ask_again(passes)
    await passes.run()
    (trial,) = await passes.end()
    told: dict[EventKind, Extent] = {}
    passes.database.on_commit(lambda rows: told.update({row.event: pools_told_of(row) for row in rows}))

    await report(passes, trial, AgentState.READY)

    assert set(told) == {EventKind.AGENT_READY, EventKind.BUILD_CHANGED}, "no template has changed"
    its_pool = frozenset({passes.pool.preset_id})
    assert told[EventKind.BUILD_CHANGED] == Extent(preset_ids=its_pool, neighbours_of=its_pool)


async def test_who_becomes_ready_in_a_healthy_pool_tells_only_those_who_wait(passes: Passes) -> None:
    await passes.run()
    (ready,) = await passes.end()
    told: list[EventKind] = []
    passes.database.on_commit(lambda rows: told.extend(row.event for row in rows))

    await report(passes, ready, AgentState.READY)

    assert told == [EventKind.AGENT_READY]


async def test_a_limit_that_is_turned_off_lets_the_pool_be_filled(passes: Passes) -> None:
    await passes.fail_until_limited()

    passes.config = Config(backoff_interval=timedelta(0), hard_limit=0)

    assert (await passes.run()).created == 1
    assert (await passes.preset()).status is HEALTHY
    assert (await passes.run()).reconciled == 0


async def test_a_retry_is_played_through_without_waiting_for_the_tick(reconcilers: Reconcilers, stage: Stage) -> None:
    admin = await reconcilers.client(await reconcilers.start(backoff_interval=timedelta(0)))
    await admin.make_organization()
    preset = (await admin.push(make_manifest(instances=2))).presets[0]
    for _ in range(2):
        await eventually(lambda: stage.jobs(preset.id), what="a job is queued")
        await stage.finish(await stage.jobs(preset.id), BuildOutcome.FAILED, FailureClass.TEMPLATE)
    await eventually_status(admin, preset.id, template_pb2.PRESET_STATUS_HARD_LIMITED)

    request = pool_service_pb2.RetryPresetRequest(id=preset.id)
    await admin.pools.RetryPreset(request, metadata=admin.metadata)
    (_,) = await eventually(lambda: stage.jobs(preset.id), what="one is let through")
    await stage.make_eligible(preset.id)

    await eventually_status(admin, preset.id, template_pb2.PRESET_STATUS_HEALTHY)
    await eventually(lambda: stage.jobs(preset.id), what="the pool is filled")
    assert (await stage.states(preset.id))[-2:] == ["running", "starting"]


async def eventually_status(client: Client, preset_id: str, status: int) -> None:
    async def has_it() -> bool:
        return (await client.pool(preset_id)).status == status

    await eventually(has_it, what=f"status {status}")


async def test_a_new_version_begins_healthy_and_fills_its_pool(passes: Passes) -> None:
    await passes.fail_until_limited()
    newer = await promote_another(passes.database, passes.pool)

    statistics = await passes.run()

    assert statistics.created == 1
    assert await passes.jobs() == []
    assert len(await passes.stage.jobs(str(newer))) == 1
    assert (await passes.preset()).status is HARD_LIMITED


async def test_a_preset_without_a_needed_value_fails_validation_once(passes: Passes) -> None:
    async with passes.database.transaction("test") as tx:
        await tx.execute(
            insert(schema.TemplateParameter).values(
                version_id=passes.pool.version_id, name="size", ordinal=0, type="string", mutable=False, options=[]
            )
        )
    other = await make_pool(passes.database, passes.pool.organization_id, template="sound", instances=1)

    first = await passes.run()
    second = await passes.run()

    assert (first.created, first.failed, first.reconciled) == (1, 0, 2)
    assert second.reconciled == 0
    preset = await passes.preset()
    assert (preset.status, preset.status_message) == (INVALID, "parameter 'size' is required and has no value")
    assert len(await passes.stage.jobs(str(other.preset_id))) == 1
    assert await passes.notifications() == []


@pytest.mark.parametrize(
    "declared, value, problem",
    [
        ({"type": "number"}, "many", "parameter 'size' must be a decimal number"),
        ({"type": "string", "options": ["small"]}, "large", "parameter 'size' must be one of: small"),
        (None, "small", "the version has no parameter 'size'"),
    ],
    ids=["type", "options", "unknown"],
)
async def test_a_preset_with_a_value_that_cannot_be_fails_validation(
    passes: Passes, declared: dict[str, object] | None, value: str, problem: str
) -> None:
    async with passes.database.transaction("test") as tx:
        if declared is not None:
            values: dict[str, object] = {"options": list[str](), **declared}
            await tx.execute(
                insert(schema.TemplateParameter).values(
                    version_id=passes.pool.version_id, name="size", ordinal=0, mutable=False, **values
                )
            )
        await tx.execute(
            insert(schema.PresetParameter).values(preset_id=passes.pool.preset_id, name="size", value=value)
        )

    assert (await passes.run()).created == 0

    preset = await passes.preset()
    assert preset.status is INVALID
    assert preset.status_message.startswith(problem)


async def test_an_invalid_preset_still_deletes(passes: Passes) -> None:
    await passes.run()
    await passes.end()
    async with passes.database.transaction("test") as tx:
        await tx.execute(
            insert(schema.PresetParameter).values(preset_id=passes.pool.preset_id, name="size", value="small")
        )
    async with passes.database.transaction("test") as tx:
        await tx.run(
            b"UPDATE presets SET last_invalidated_at = clock_timestamp() WHERE id = %(id)s",
            {"id": passes.pool.preset_id},
        )

    statistics = await passes.run()

    assert (statistics.deleted, statistics.created) == (1, 0)
    assert (await passes.preset()).status is INVALID
    assert len(await passes.stage.jobs(passes.preset_id, Transition.DELETE)) == 1


async def promote_another(database: Database, pool: PoolKey) -> PresetId:
    """Make another version with the same preset the active one."""
    version_id, preset_id = VersionId(uuid4()), PresetId(uuid4())
    version, preset = schema.TemplateVersion, schema.Preset
    async with database.transaction("test") as tx:
        author = await tx.scalar(select(version.created_by).where(version.id == pool.version_id))
        await tx.execute(
            insert(version).values(
                id=version_id,
                organization_id=pool.organization_id,
                template_id=pool.template_id,
                number=2,
                name="2",
                backend=BackendKind.PROCESS,
                agents=["main"],
                manifest={},
                source_archive=b"",
                created_by=author,
            )
        )
        await tx.execute(
            insert(preset).values(
                id=preset_id,
                organization_id=pool.organization_id,
                template_id=pool.template_id,
                version_id=version_id,
                name=pool.preset_name,
                is_default=True,
                desired_instances=1,
            )
        )
        await tx.execute(
            update(schema.Template).where(schema.Template.id == pool.template_id).values(active_version_id=version_id)
        )
    return preset_id
