"""Pushing, promoting and looking at templates, over gRPC."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from prebuilds.domain.principals import Role
from prebuilds.domain.refusals import Reason
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.v1 import template_pb2
from prebuilds.v1 import template_service_pb2 as pb
from tests.support.reconciling import Client, Reconcilers, make_archive, make_manifest, pack, refused


async def stored(database: Database) -> list[int]:
    """How many rows each table has that a push writes."""
    tables = (schema.Template, schema.TemplateVersion, schema.Preset, schema.TemplateParameter, schema.Request)
    async with database.transaction("test") as tx:
        return [await tx.scalar(select(func.count()).select_from(table)) or 0 for table in tables]


async def test_a_push_stores_the_checked_manifest_with_its_defaults(operator: Client, database: Database) -> None:
    pushed = await operator.push(make_manifest())

    assert (pushed.version.number, pushed.version.name, pushed.version.active) == (1, "v1", True)
    assert pushed.template.active_version_id == pushed.version.id
    assert pushed.template_created
    assert list(pushed.version.agent_names) == ["main"]
    assert pushed.presets[0].prebuilds.instances == 3
    async with database.transaction("test") as tx:
        manifest: dict[str, Any] = (await tx.execute(select(schema.TemplateVersion.manifest))).scalar_one()
    assert manifest["claim_strategy"] == "provision"
    assert manifest["process"] == {"startup": "./startup.sh", "env": {}}


async def test_all_problems_of_a_manifest_are_told_at_once_and_nothing_is_stored(
    operator: Client, database: Database
) -> None:
    manifest = make_manifest(
        agents=["main", "main"],
        surprise=1,
        parameters=[{"name": "size", "options": ["small"], "default": "huge"}, {"name": "region"}],
        presets=[
            {"name": "a", "default": True, "parameters": {"size": "small"}, "prebuilds": {"instances": -1}},
            {
                "name": "a",
                "default": True,
                "parameters": {"region": "eu", "color": "red"},
                "prebuilds": {
                    "instances": 1,
                    "expiration_policy": {"ttl": 60},
                    "scheduling": {
                        "timezone": "Mars/Olympus",
                        "schedule": [
                            {"cron": "* 8-18 * * 1-5", "instances": 2},
                            {"cron": "* 18-19 * * 5", "instances": 2},
                            {"cron": "* 22-4 * * *", "instances": 2},
                        ],
                    },
                },
            },
        ],
        lifecycle={"ttl": "eight hours"},
    )

    with refused(Reason.INVALID_MANIFEST) as caught:
        await operator.push(manifest)

    wrong = {violation.field for violation in caught[0].violations}
    assert wrong == {
        "surprise",
        "agents[1]",
        "parameters[0].default",
        "presets[0].prebuilds.instances",
        "presets[0].parameters.region",
        "presets[1]",
        "presets[1].default",
        "presets[1].parameters.color",
        "presets[1].prebuilds.expiration_policy.ttl",
        "presets[1].prebuilds.scheduling.timezone",
        "presets[1].prebuilds.scheduling.schedule[1].cron",
        "presets[1].prebuilds.scheduling.schedule[2].cron",
        "lifecycle.ttl",
    }
    assert await stored(database) == [0, 0, 0, 0, 0]


async def test_a_number_of_many_digits_is_stored_as_it_was_written(operator: Client) -> None:
    rules = {"min": -999_999_999_999_999, "max": 0.000001}
    pushed = await operator.push(
        make_manifest(parameters=[{"name": "size", "type": "number", "validation": rules}], presets=[])
    )

    validation = pushed.version.parameters[0].validation
    assert (validation.min, validation.max) == (rules["min"], rules["max"])


async def test_a_full_manifest_is_pushed(operator: Client) -> None:
    regex = "(a+)+$"
    manifest = make_manifest(
        parameters=[
            {"name": f"p{number}", "default": "a" * 100, "validation": {"regex": regex}} for number in range(200)
        ],
        presets=[{"name": f"preset {number}", "parameters": {"p1": "a" * 500}} for number in range(200)],
    )

    assert len((await operator.push(manifest)).presets) == 200


async def test_an_oversized_archive_is_refused(operator: Client, database: Database) -> None:
    noise = bytes(range(256)) * 100
    with refused(Reason.ARCHIVE_TOO_LARGE):
        await operator.push(archive=b"\x1f\x8b" + noise * 164 + b"x" * 100)
    with refused(Reason.ARCHIVE_TOO_LARGE):
        await operator.push(archive=make_archive(make_manifest(), {"zeros": bytes(33 * 1024**2)}))
    with refused(Reason.ARCHIVE_TOO_LARGE):
        await operator.push(archive=bytes(16 * 1024**2))
    assert await stored(database) == [0, 0, 0, 0, 0]


async def test_an_archive_of_just_the_allowed_size_arrives(operator: Client) -> None:
    with refused(Reason.INVALID_ARCHIVE):
        await operator.push(archive=b"x" * (4 * 1024**2))


async def test_an_archive_that_leads_out_is_refused_with_every_path(operator: Client) -> None:
    archive = pack({"../evil": b"", "/etc/passwd": b"", "fine": b""}, links={"link": "/etc"})

    with refused(Reason.INVALID_ARCHIVE) as caught:
        await operator.push(archive=archive)

    assert {violation.field for violation in caught[0].violations} == {
        "archive:../evil",
        "archive:/etc/passwd",
        "archive:link",
        "archive",
    }


@pytest.mark.parametrize(
    "text",
    [
        "!!bool maybe",
        r'{"name": "\udfff", "\ud800": 1}',
        r'{"parameters": [{"name": "a", "validation": {"regex": "\0"}}]}',
        "parameters: [{name: a, type: number, validation: {min: .nan, max: .inf}}]",
        "lifecycle: {autostart: 0 " + "1" * 5000 + " * * *}",
        "",
        "name: [",
        "a: 1\na: 2",
        "a: &x 1\nb: *x",
        "- " * 5000,
        "\x00",
        "? [1, 2]\n: 3",
        "{" * 3000,
    ],
    ids=[
        "tag",
        "surrogate",
        "nul in a pattern",
        "no number",
        "long number",
        "empty",
        "cut off",
        "repeated key",
        "alias",
        "deep",
        "nul",
        "key that is no text",
        "deep mapping",
    ],
)
async def test_what_is_no_plain_yaml_is_refused(operator: Client, text: str) -> None:
    with refused(Reason.INVALID_MANIFEST):
        await operator.push(archive=make_archive(text))


async def test_a_repeated_request_gets_the_first_answer(operator: Client) -> None:
    archive = make_archive(make_manifest())
    first = await operator.push(archive=archive, request_id="r1")

    assert await operator.push(archive=archive, request_id="r1") == first
    with refused(Reason.REQUEST_ID_REUSED):
        await operator.push(archive=archive, request_id="r1", activate=True)


async def test_checking_only_stores_nothing(operator: Client, database: Database) -> None:
    answer = await operator.push(make_manifest(), validate_only=True, request_id="r1")

    assert answer.version.name == "v1"
    assert answer.presets[0].name == "small"
    assert not answer.version.id
    assert not answer.template.id
    assert await stored(database) == [0, 0, 0, 0, 0]


async def test_a_version_name_is_taken_once(operator: Client) -> None:
    await operator.push(make_manifest(), version_name="v2")
    with refused(Reason.NAME_TAKEN):
        await operator.push(make_manifest(), version_name="v2")

    assert (await operator.push(make_manifest())).version.name.startswith("v2-")


@pytest.mark.parametrize("name", ["0d5f4b8e-6d1d-4b67-9a8c-1f6a5f3f6f10", "v1\n", " v1", "v\x07"])
async def test_a_version_name_is_no_uuid_and_printable(operator: Client, name: str) -> None:
    with refused(Reason.INVALID_FIELDS) as caught:
        await operator.push(make_manifest(), version_name=name)

    assert [violation.field for violation in caught[0].violations] == ["version_name"]


async def test_members_may_look_and_not_push(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    await operator.make_organization()
    member = await reconcilers.client(address, operator=False, name="alice", roles=[Role.MEMBER])
    pushed = await operator.push(make_manifest())

    request = pb.GetTemplateRequest(id=pushed.template.id)
    assert (await member.templates.GetTemplate(request, metadata=member.metadata)).template == pushed.template
    with refused(Reason.PERMISSION_DENIED):
        await member.push(make_manifest())


async def test_things_of_other_organisations_do_not_exist(reconcilers: Reconcilers) -> None:
    address = await reconcilers.start()
    operator = await reconcilers.client(address)
    await operator.make_organization("acme")
    await operator.make_organization("other")
    pushed = await operator.push(make_manifest())
    stranger = await reconcilers.client(address, operator=False, name="eve", roles=[Role.OWNER], at="other")
    metadata, templates = stranger.metadata, stranger.templates

    with refused(Reason.NOT_FOUND):
        await stranger.push(make_manifest())
    with refused(Reason.NOT_FOUND):
        await templates.GetTemplate(pb.GetTemplateRequest(id=pushed.template.id), metadata=metadata)
    with refused(Reason.NOT_FOUND):
        await templates.PromoteTemplateVersion(
            pb.PromoteTemplateVersionRequest(id=pushed.version.id), metadata=metadata
        )
    with refused(Reason.NOT_FOUND):
        await templates.GetPreset(pb.GetPresetRequest(id=pushed.presets[0].id), metadata=metadata)
    with refused(Reason.NOT_FOUND):
        await stranger.pool(pushed.presets[0].id)


async def test_lists_come_in_pages_bound_to_their_query(operator: Client) -> None:
    for name in ("a", "b", "c"):
        request = pb.CreateTemplateRequest(organization="acme", template=template_pb2.Template(name=name))
        await operator.templates.CreateTemplate(request, metadata=operator.metadata)
    listing = pb.ListTemplatesRequest(organization="acme", page_size=2)

    first = await operator.templates.ListTemplates(listing, metadata=operator.metadata)
    listing.page_token = first.next_page_token
    second = await operator.templates.ListTemplates(listing, metadata=operator.metadata)

    assert [template.name for template in first.templates] == ["a", "b"]
    assert [template.name for template in second.templates] == ["c"]
    assert not second.next_page_token
    listing.filter = "name=a"
    with refused(Reason.PAGE_TOKEN_INVALID):
        await operator.templates.ListTemplates(listing, metadata=operator.metadata)


async def test_bad_fields_are_told_together(operator: Client) -> None:
    template = template_pb2.Template(name="Bad Name", description="x" * 129, max_starting=0)

    with refused(Reason.INVALID_FIELDS) as caught:
        await operator.templates.CreateTemplate(
            pb.CreateTemplateRequest(template=template, request_id="\n"), metadata=operator.metadata
        )

    assert {violation.field for violation in caught[0].violations} == {
        "organization",
        "template.name",
        "template.description",
        "template.max_starting",
        "request_id",
    }


async def test_a_template_name_is_taken_once(operator: Client) -> None:
    request = pb.CreateTemplateRequest(organization="acme", template=template_pb2.Template(name="a"))
    first = await operator.templates.CreateTemplate(request, metadata=operator.metadata)

    with refused(Reason.NAME_TAKEN):
        await operator.templates.CreateTemplate(request, metadata=operator.metadata)
    pushed = await operator.push(make_manifest(), template="a")

    assert pushed.template.id == first.template.id
    assert pushed.version.active


async def test_promotion_takes_over_strategy_and_lifecycle(operator: Client) -> None:
    await operator.push(make_manifest())
    second = await operator.push(make_manifest(claim_strategy="instant", lifecycle={"ttl": "8h"}))
    assert second.template.claim_strategy == template_pb2.CLAIM_STRATEGY_PROVISION

    request = pb.PromoteTemplateVersionRequest(id=second.version.id)
    promoted = await operator.templates.PromoteTemplateVersion(request, metadata=operator.metadata)

    assert promoted.version.active
    assert promoted.template.claim_strategy == template_pb2.CLAIM_STRATEGY_INSTANT
    assert promoted.template.lifecycle.ttl.seconds == 8 * 3600


async def test_versions_and_presets_are_listed(operator: Client) -> None:
    for _ in range(2):
        await operator.push(make_manifest())
    versions = await operator.templates.ListTemplateVersions(
        pb.ListTemplateVersionsRequest(organization="acme", template="python-dev"), metadata=operator.metadata
    )
    presets = await operator.templates.ListPresets(
        pb.ListPresetsRequest(organization="acme", template="python-dev", filter="has_pool=true"),
        metadata=operator.metadata,
    )

    assert [(version.number, version.active) for version in versions.versions] == [(2, False), (1, True)]
    assert [preset.version_name for preset in presets.presets] == ["v1"]
