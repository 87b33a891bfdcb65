"""Updating, deprecating and deleting templates, over gRPC; passes are woken by events, their tick is an hour away."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from uuid import UUID, uuid4

import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import update

from prebuilds.domain.builds import JobStatus, Transition
from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.reconciler.queries.pools import lock_preset
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import create_prebuilds
from prebuilds.v1 import template_pb2
from prebuilds.v1 import template_service_pb2 as pb
from tests.support.builders import claim_prebuild, make_user, make_workspace
from tests.support.reconciling import Client, Reconcilers, Stage, make_archive, make_manifest, refused
from tests.support.templates import (
    deeds,
    delete_template,
    deprecate,
    eventually_queued,
    get_template,
    hours,
    job_status,
    list_templates,
    make_template,
    park_one,
    pool_key,
    promote,
    take,
    update_template,
)
from tests.support.waiting import eventually, until_waiting

DELETE = Transition.DELETE


async def test_an_update_changes_what_its_mask_names_and_nothing_else(operator: Client) -> None:
    template = await make_template(operator)
    wanted = template_pb2.Template(
        id=template.id,
        display_name="not named",
        description="for all",
        lifecycle=template_pb2.Lifecycle(ttl=hours(4)),
    )

    changed = await update_template(operator, wanted, "description", "lifecycle.ttl")

    assert (changed.display_name, changed.description, changed.max_starting) == ("Python", "for all", 5)
    assert changed.lifecycle.ttl == hours(4)
    assert changed.lifecycle.autostart_schedule == "0 8 * * 1-5"
    assert changed.lifecycle.time_til_dormant == hours(720)
    assert changed.update_time.ToDatetime() > template.update_time.ToDatetime()
    assert await get_template(operator, template.id) == changed


async def test_a_field_that_is_named_and_unset_is_cleared(operator: Client) -> None:
    template = await make_template(operator)

    changed = await update_template(
        operator, template_pb2.Template(id=template.id), "display_name", "max_starting", "lifecycle.ttl"
    )

    assert changed.display_name == ""
    assert not changed.HasField("max_starting")
    assert not changed.lifecycle.HasField("ttl")
    assert changed.lifecycle.time_til_dormant == hours(720)


async def test_the_lifecycle_is_replaced_as_a_whole_where_it_is_named_as_a_whole(operator: Client) -> None:
    template = await make_template(operator)
    lifecycle = template_pb2.Lifecycle(time_til_dormant_autodelete=hours(24))

    changed = await update_template(operator, template_pb2.Template(id=template.id, lifecycle=lifecycle), "lifecycle")

    assert changed.lifecycle == lifecycle


async def test_all_that_is_wrong_with_an_update_is_told_at_once_and_nothing_is_changed(operator: Client) -> None:
    template = await make_template(operator)
    wanted = template_pb2.Template(
        id="x",
        display_name="x" * 65,
        description="not named: " + "x" * 128,
        max_starting=-1,
        lifecycle=template_pb2.Lifecycle(ttl=Duration(seconds=1), autostart_schedule="@daily"),
    )

    with refused(Reason.INVALID_FIELDS) as caught:
        await update_template(
            operator, wanted, "display_name", "max_starting", "lifecycle", "name", "deleted", "nothing"
        )
    with refused(Reason.INVALID_FIELDS) as unnamed:
        await update_template(operator, template_pb2.Template(id=template.id, display_name="x"))

    assert sorted(violation.field for violation in caught[0].violations) == [
        "template.display_name",
        "template.id",
        "template.lifecycle.autostart_schedule",
        "template.lifecycle.ttl",
        "template.max_starting",
        *["update_mask"] * 3,
    ]
    assert [violation.field for violation in unnamed[0].violations] == ["update_mask"]
    assert await get_template(operator, template.id) == template


async def test_an_update_leaves_in_the_audit_log_what_changed_and_one_that_changes_nothing_leaves_no_trace(
    operator: Client, database: Database
) -> None:
    template = await make_template(operator)
    lifecycle = template_pb2.Lifecycle(ttl=hours(4))
    wanted = template_pb2.Template(id=template.id, description=template.description, lifecycle=lifecycle)

    changed = await update_template(operator, wanted, "lifecycle.ttl", "description", "max_starting")
    again = await update_template(operator, wanted, "lifecycle.ttl", "description", "max_starting")

    assert again == changed
    assert await deeds(database) == [
        ("template.create", {}),
        ("template.update", {"lifecycle.ttl": {"from": "8h", "to": "4h"}, "max_starting": {"from": 5, "to": None}}),
    ]


async def test_updates_at_once_do_not_undo_each_other(operator: Client) -> None:
    template = await make_template(operator)

    for number in range(1, 6):
        wanted = template_pb2.Template(
            id=template.id, display_name=f"n{number}", description=f"d{number}", max_starting=number
        )
        await asyncio.gather(
            *(update_template(operator, wanted, path) for path in ("display_name", "description", "max_starting"))
        )

        changed = await get_template(operator, template.id)
        assert (changed.display_name, changed.description) == (f"n{number}", f"d{number}")
        assert changed.max_starting == number


async def test_a_higher_bound_on_what_may_be_starting_is_used_at_once(operator: Client, stage: Stage) -> None:
    template = await make_template(operator)
    await update_template(operator, template_pb2.Template(id=template.id, max_starting=1), "max_starting")
    preset = (await operator.push(make_manifest(instances=3))).presets[0]
    await eventually_queued(stage, preset.id, 1)

    await update_template(operator, template_pb2.Template(id=template.id), "max_starting")

    await eventually_queued(stage, preset.id, 3)


async def test_a_deprecated_template_drains_its_pools_and_fills_them_when_that_is_lifted(
    operator: Client, stage: Stage, database: Database
) -> None:
    pushed = await operator.push(make_manifest(instances=3))
    preset = pushed.presets[0]
    queued, taken, built = await eventually_queued(stage, preset.id, 3)
    await stage.finish([built])
    await take(database, taken)

    deprecated = await deprecate(operator, pushed.template.id, "use go-dev")

    assert deprecated.deprecation_message == "use go-dev"
    await eventually_queued(stage, preset.id, 1, DELETE)
    assert await job_status(database, queued) is JobStatus.CANCELED
    assert await job_status(database, taken) is JobStatus.RUNNING
    assert await stage.states(preset.id) == ["deleting", "starting"]

    await stage.finish([taken])
    await stage.finish(await eventually_queued(stage, preset.id, 2, DELETE))
    assert await stage.states(preset.id) == []

    lifted = await deprecate(operator, pushed.template.id, "")

    assert lifted.deprecation_message == ""
    await eventually_queued(stage, preset.id, 3)
    assert (await deeds(database))[-2:] == [
        ("template.deprecate", {"message": {"from": "", "to": "use go-dev"}}),
        ("template.undeprecate", {"message": {"from": "use go-dev", "to": ""}}),
    ]


async def test_deprecating_again_with_the_same_message_does_nothing(operator: Client, database: Database) -> None:
    template = await make_template(operator)

    first = await deprecate(operator, template.id, "use go-dev")

    assert await deprecate(operator, template.id, "use go-dev") == first
    assert (await deprecate(operator, template.id, "use rust-dev")).deprecation_message == "use rust-dev"
    assert [action for action, _ in await deeds(database)] == ["template.create", *["template.deprecate"] * 2]


async def test_deprecated_templates_can_be_listed_alone(operator: Client) -> None:
    deprecated, other = await make_template(operator, "a"), await make_template(operator, "b")
    await deprecate(operator, deprecated.id, "x" * 1000)

    assert await list_templates(operator, "deprecated=true") == [deprecated.id]
    assert await list_templates(operator, "deprecated=false") == [other.id]


@pytest.mark.parametrize("message", ["x" * 1001, " \n ", "a\0"])
async def test_a_message_that_says_nothing_or_too_much_is_refused(operator: Client, message: str) -> None:
    with refused(Reason.INVALID_FIELDS) as caught:
        await deprecate(operator, str(uuid4()), message)

    assert [violation.field for violation in caught[0].violations] == ["message"]


async def test_a_deletion_counts_first_and_drains_then(operator: Client, stage: Stage, database: Database) -> None:
    pushed = await operator.push(make_manifest(instances=4))
    preset, template = pushed.presets[0], pushed.template
    await eventually_queued(stage, preset.id, 4)
    await stage.make_eligible(preset.id)
    alice = await make_user(database)
    await claim_prebuild(database, pool_key(preset), alice)
    await make_workspace(database, pool_key(preset), alice, "own")
    gone = await make_workspace(database, pool_key(preset), alice, "gone")
    async with database.transaction("test") as tx:
        await tx.execute(update(schema.Workspace).where(schema.Workspace.id == gone.workspace_id).values(deleted=True))
    await eventually_queued(stage, preset.id, 1)
    await park_one(database, preset.id)
    await operator.reconcile()
    await eventually_queued(stage, preset.id, 2)

    counted = await delete_template(operator, template.id, validate_only=True)

    assert (counted.workspace_count, counted.prebuild_count) == (2, 4)
    assert not counted.template.deleted
    assert await get_template(operator, template.id) == counted.template
    assert await stage.jobs(preset.id, DELETE) == []

    deleted = await delete_template(operator, template.id)

    assert (deleted.workspace_count, deleted.prebuild_count) == (2, 4)
    assert deleted.template.deleted
    deletes = await eventually_queued(stage, preset.id, 2, DELETE)
    await eventually_queued(stage, preset.id, 0)
    assert await stage.states(preset.id) == ["deleting", "deleting", "stopped"]
    await stage.finish(deletes)
    again = await delete_template(operator, template.id)
    assert (again.template, again.workspace_count, again.prebuild_count) == (deleted.template, 2, 0)
    assert [deed for deed in await deeds(database) if deed[0] == "template.delete"] == [
        ("template.delete", {"workspaces": 2, "prebuilds": 4})
    ]


async def test_what_is_being_built_for_a_deleted_template_is_built_and_then_deleted(
    operator: Client, stage: Stage, database: Database
) -> None:
    pushed = await operator.push(make_manifest(instances=1))
    preset = pushed.presets[0]
    (job_id,) = await eventually_queued(stage, preset.id, 1)
    await take(database, job_id)

    assert (await delete_template(operator, pushed.template.id)).prebuild_count == 1
    assert (await operator.reconcile()).deleted == 0
    await stage.finish([job_id])

    await stage.finish(await eventually_queued(stage, preset.id, 1, DELETE))
    assert await stage.states(preset.id) == []


async def test_a_deleted_template_can_be_looked_at_and_its_name_is_free(operator: Client) -> None:
    old = await operator.push(make_manifest(instances=0))
    await delete_template(operator, old.template.id)

    new = await operator.push(make_manifest(instances=0))

    assert new.template_created
    assert new.template.id != old.template.id
    assert new.version.name == "v1"
    assert (await get_template(operator, old.template.id)).deleted
    assert await list_templates(operator) == [new.template.id]
    both = await list_templates(operator, "name=python-dev", show_deleted=True)
    assert sorted(both) == sorted([old.template.id, new.template.id])
    for named, pushed in ((old.template.id, old), ("python-dev", new)):
        versions = pb.ListTemplateVersionsRequest(organization="acme", template=named)
        answer = await operator.templates.ListTemplateVersions(versions, metadata=operator.metadata)
        assert [each.id for each in answer.versions] == [pushed.version.id]
        presets = pb.ListPresetsRequest(organization="acme", template=named)
        listed = await operator.templates.ListPresets(presets, metadata=operator.metadata)
        assert [each.active for each in listed.presets] == [pushed is new]


async def test_presets_of_deprecated_templates_are_not_active(operator: Client) -> None:
    pushed = await operator.push(make_manifest(instances=0))
    request = pb.GetPresetRequest(id=pushed.presets[0].id)

    seen: list[bool] = []
    for message in ("", "old", ""):
        await deprecate(operator, pushed.template.id, message)
        preset = (await operator.templates.GetPreset(request, metadata=operator.metadata)).preset
        seen.append(preset.active)

    assert seen == [True, False, True]


async def test_a_deleted_template_is_not_changed_any_more(operator: Client) -> None:
    await operator.push(make_manifest(instances=0))
    second = await operator.push(make_manifest(instances=0))
    deleted = (await delete_template(operator, second.template.id)).template

    with refused(Reason.TEMPLATE_DELETED):
        await update_template(operator, template_pb2.Template(id=deleted.id), "display_name")
    with refused(Reason.TEMPLATE_DELETED):
        await deprecate(operator, deleted.id, "x")
    with refused(Reason.TEMPLATE_DELETED):
        await promote(operator, second.version.id)

    assert await get_template(operator, deleted.id) == deleted


async def test_deletions_at_once_are_one(operator: Client, database: Database) -> None:
    template = await make_template(operator)

    answers = await asyncio.gather(*(delete_template(operator, template.id) for _ in range(4)))

    assert all(answer == answers[0] for answer in answers)
    assert [action for action, _ in await deeds(database)] == ["template.create", "template.delete"]


async def test_a_push_that_waits_for_a_deletion_makes_a_new_template(
    operator: Client, database: Database, database_url: str
) -> None:
    template = (await operator.push(make_manifest(instances=0))).template
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer:
        async with database.transaction("deletion") as tx:
            await tx.execute(
                update(schema.Template).where(schema.Template.id == UUID(template.id)).values(deleted=True)
            )
            pushing = asyncio.create_task(operator.push(make_manifest(instances=0)))
            await until_waiting(observer)
        pushed = await pushing

    assert pushed.template_created
    assert pushed.template.id != template.id


@pytest.mark.parametrize("retire", [delete_template, partial(deprecate, message="old")], ids=["delete", "deprecate"])
async def test_what_a_pass_was_just_making_drains_too(
    retire: Callable[[Client, str], Awaitable[object]],
    operator: Client,
    stage: Stage,
    database: Database,
    database_url: str,
) -> None:
    pushed = await operator.push(make_manifest(instances=0))
    preset = pushed.presets[0]
    pool = pool_key(preset)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer:
        # Another replica's pass, which has read the pool as it was before.
        async with database.transaction("reconcile") as tx:
            assert await lock_preset(tx, pool.preset_id)
            await create_prebuilds(tx, pool, 2, parameters={"size": "small"}, reason="test")
            retiring = asyncio.ensure_future(retire(operator, pushed.template.id))
            await until_waiting(observer)
        await retiring

    async def is_empty() -> bool:
        return await stage.states(preset.id) == []

    await eventually(is_empty, what="the pool drains")
    assert await stage.jobs(preset.id) == []


async def test_who_may_only_look_changes_nothing(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    await operator.make_organization()
    pushed = await operator.push(make_manifest(instances=0))
    for name, role in (("alice", Role.MEMBER), ("audrey", Role.AUDITOR)):
        client = await reconcilers.client(address, operator=False, name=name, roles=[role])
        for change in changes(client, pushed.template.id, pushed.version.id):
            with refused(Reason.PERMISSION_DENIED):
                await change()

    admin = await reconcilers.client(address, operator=False, name="adam", roles=[Role.TEMPLATE_ADMIN])
    for change in changes(admin, pushed.template.id, pushed.version.id):
        await change()

    assert (await get_template(admin, pushed.template.id)).deleted


async def test_templates_of_other_organisations_do_not_exist(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    for name in ("acme", "other"):
        await operator.make_organization(name)
    pushed = await operator.push(make_manifest(instances=0))
    stranger = await reconcilers.client(address, operator=False, name="eve", roles=[Role.OWNER], at="other")

    for change in changes(stranger, pushed.template.id, pushed.version.id):
        with refused(Reason.NOT_FOUND):
            await change()
    for change in changes(operator, str(uuid4()), str(uuid4())):
        with refused(Reason.NOT_FOUND):
            await change()

    assert await get_template(operator, pushed.template.id) == pushed.template


async def test_a_repeated_creation_gets_the_template_as_it_is_now(operator: Client) -> None:
    first = await make_template(operator, "a", request_id="one")
    await delete_template(operator, first.id)

    again = await make_template(operator, "a", request_id="one")
    with refused(Reason.REQUEST_ID_REUSED):
        await make_template(operator, "b", request_id="one")

    assert (again.id, again.deleted) == (first.id, True)


async def test_a_version_says_size_and_digest_of_its_archive(operator: Client) -> None:
    archive = make_archive(make_manifest())

    version = (await operator.push(archive=archive)).version

    assert version.archive_size_bytes == len(archive)
    assert version.archive_sha256 == hashlib.sha256(archive).hexdigest()


def changes(client: Client, template_id: str, version_id: str) -> Sequence[Callable[[], Awaitable[object]]]:
    """Everything that may be done to a template, the last of it for good."""
    wanted = template_pb2.Template(id=template_id, display_name="x")
    return [
        partial(update_template, client, wanted, "display_name"),
        partial(promote, client, version_id),
        partial(deprecate, client, template_id, "old"),
        partial(delete_template, client, template_id, validate_only=True),
        partial(delete_template, client, template_id),
    ]
