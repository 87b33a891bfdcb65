"""`prebuilds templates`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from prebuilds.cli.confirming import Yes, confirm
from prebuilds.cli.connection import EXIT_USAGE, Organization, fail, run
from prebuilds.cli.finding import TemplateName, find_template, presets_of, templates_of, versions_of
from prebuilds.cli.output import Format, Output, age, console, show_facts, show_json, show_json_object, show_table, word
from prebuilds.cli.template_views import (
    PRESET_HEADERS,
    concerned,
    facts,
    instances,
    parameters,
    preset_row,
    preset_status,
    status,
)
from prebuilds.sdk.client import PrebuildsClient
from prebuilds.v1 import template_pb2, template_service_pb2

app = typer.Typer(help="What can be built: push, promote, deprecate, delete.", no_args_is_help=True)

_SHOWN_VERSIONS: Final = 10


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder with template.yaml at its top.")],
    *,
    name: Annotated[str, typer.Option(help="Name of the template; default: the manifest's.")] = "",
    version: Annotated[str, typer.Option(help="Name of the version; default: v and its number.")] = "",
    activate: Annotated[bool, typer.Option(help="Make it the active version.")] = True,
    check: Annotated[bool, typer.Option("--check", help="Only check it; store nothing.")] = False,
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """Push a folder as a new version; everything that is wrong with it is reported at once."""

    async def work(client: PrebuildsClient, organization: str) -> template_service_pb2.PushTemplateVersionResponse:
        return await client.push_template(
            folder,
            organization,
            template=name,
            version_name=version,
            activate=activate,
            validate_only=check,
        )

    pushed = run(work, organization=organization)
    if output is Format.JSON:
        show_json(pushed)
        return
    if check:
        console.print(f"{pushed.version.template_name} is valid")
        return
    active = ", active" if pushed.version.active else ""
    console.print(f"pushed {pushed.version.template_name} {pushed.version.name}{active}")
    rows = [
        (preset.name, "yes" if preset.is_default else "", instances(preset), parameters(preset))
        for preset in pushed.presets
    ]
    show_table(("preset", "default", "prebuilds", "parameters"), rows)


@app.command("list")
def list_(
    *,
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones, too.")] = False,
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """List the templates of the organization."""

    async def work(client: PrebuildsClient, organization: str) -> list[template_pb2.Template]:
        return await templates_of(client, organization, show_deleted=deleted)

    templates = run(work, organization=organization)
    if output is Format.JSON:
        show_json(templates)
        return
    rows = [
        (
            each.name,
            each.active_version_name or "-",
            status(each),
            word(template_pb2.ClaimStrategy, each.claim_strategy, "CLAIM_STRATEGY_"),
            age(each.create_time),
            each.description,
        )
        for each in templates
    ]
    show_table(("name", "version", "status", "claims", "age", "description"), rows)


@app.command()
def show(template: TemplateName, *, organization: Organization = "", output: Output = Format.TABLE) -> None:
    """Show a template with its versions, and the presets of the active one."""

    async def work(
        client: PrebuildsClient, organization: str
    ) -> tuple[template_pb2.Template, list[template_pb2.TemplateVersion], list[template_pb2.Preset]]:
        found = await find_template(client, organization, template)
        versions = await versions_of(client, organization, found.id)
        active = found.active_version_id
        return found, versions, await presets_of(client, organization, found.id, active) if active else []

    found, versions, presets = run(work, organization=organization)
    if output is Format.JSON:
        show_json_object(template=found, versions=versions, presets=presets)
        return
    show_facts(facts(found))
    shown = [each for index, each in enumerate(versions) if index < _SHOWN_VERSIONS or each.active]
    console.print()
    show_table(
        ("version", "active", "pushed by", "age", "backend"),
        (
            (
                each.name,
                "yes" if each.active else "",
                each.creator_name,
                age(each.create_time),
                word(template_pb2.BackendKind, each.backend, "BACKEND_KIND_"),
            )
            for each in shown
        ),
    )
    if len(shown) < len(versions):
        console.print(f"and {len(versions) - len(shown)} more")
    if not presets:
        return
    console.print()
    show_table(PRESET_HEADERS, map(preset_row, presets))
    for preset in presets:
        if preset.status_detail:
            show_facts({f"{preset.name} is {preset_status(preset)}": preset.status_detail.strip()})


@app.command()
def promote(
    template: TemplateName,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Name or id; default: the newest.")] = "",
    *,
    previous: Annotated[
        bool, typer.Option("--previous", help="Roll back: to the one pushed before the active.")
    ] = False,
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """Make a version the active one; an older one rolls back. Its pools fill, those of the other drain."""
    if version and previous:
        fail("name a version or say --previous", EXIT_USAGE)

    async def work(client: PrebuildsClient, organization: str) -> template_service_pb2.PromoteTemplateVersionResponse:
        found = await find_template(client, organization, template)
        versions = await versions_of(client, organization, found.id)
        chosen = _previous(versions, found) if previous else _version(versions, found, version)
        request = template_service_pb2.PromoteTemplateVersionRequest(id=chosen.id)
        return await client.call(client.templates.PromoteTemplateVersion, request)

    promoted = run(work, organization=organization)
    if output is Format.JSON:
        show_json(promoted)
    elif promoted.previous_version_id == promoted.version.id:
        console.print(f"{promoted.template.name} {promoted.version.name} is active already")
    else:
        console.print(f"{promoted.template.name} {promoted.version.name} is active")


@app.command()
def deprecate(
    template: TemplateName,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="What people are told who want to use it.")] = "",
    *,
    lift: Annotated[bool, typer.Option("--lift", help="Let it be used again.")] = False,
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """Keep a template from being used for new workspaces, and drain its pools; or lift that."""
    if bool(message) == lift:
        fail("say what people are told, or --lift", EXIT_USAGE)

    async def work(client: PrebuildsClient, organization: str) -> tuple[template_pb2.Template, template_pb2.Template]:
        found = await find_template(client, organization, template)
        request = template_service_pb2.DeprecateTemplateRequest(id=found.id, message=message)
        return found, (await client.call(client.templates.DeprecateTemplate, request)).template

    before, changed = run(work, organization=organization)
    if output is Format.JSON:
        show_json(changed)
    elif lift and not before.deprecation_message:
        console.print(f"{changed.name} was not deprecated")
    elif lift:
        console.print(f"{changed.name} is no longer deprecated")
    else:
        console.print(f"{changed.name} is deprecated: {changed.deprecation_message}")


@app.command()
def delete(
    template: TemplateName, *, yes: Yes = False, organization: Organization = "", output: Output = Format.TABLE
) -> None:
    """Delete a template and its prebuilds; people's workspaces of it go on, but cannot be started again."""

    async def work(client: PrebuildsClient, organization: str) -> template_service_pb2.DeleteTemplateResponse:
        found = await find_template(client, organization, template)
        request = template_service_pb2.DeleteTemplateRequest(id=found.id, validate_only=True)
        if not yes:
            counted = await client.call(client.templates.DeleteTemplate, request)
            confirm(f"Delete {found.name}? {concerned(counted)}.")
        request.validate_only = False
        return await client.call(client.templates.DeleteTemplate, request)

    deleted = run(work, organization=organization)
    if output is Format.JSON:
        show_json(deleted)
    else:
        console.print(f"{deleted.template.name} is deleted: {concerned(deleted)}")


def _version(
    versions: list[template_pb2.TemplateVersion], template: template_pb2.Template, which: str
) -> template_pb2.TemplateVersion:
    found = next((each for each in versions if not which or which in {each.name, each.id}), None)
    if found is None:
        what = f"no version {which!r}; see `prebuilds templates show {template.name}`" if which else "no version"
        fail(f"{template.name} has {what} [NOT_FOUND]")
    return found


def _previous(
    versions: list[template_pb2.TemplateVersion], template: template_pb2.Template
) -> template_pb2.TemplateVersion:
    active = next((each.number for each in versions if each.active), 0)
    older = [each for each in versions if each.number < active]
    if not older:
        fail(f"{template.name} has no version before its active one")
    return max(older, key=lambda each: each.number)
