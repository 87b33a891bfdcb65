"""`prebuilds templates`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prebuilds.cli.connection import Organization, run
from prebuilds.cli.output import Format, Output, age, console, show_json, show_table, word
from prebuilds.sdk.client import PrebuildsClient
from prebuilds.v1 import template_pb2, template_service_pb2

app = typer.Typer(help="What can be built: push, list.", no_args_is_help=True)


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
        (preset.name, "yes" if preset.is_default else "", _instances(preset), _parameters(preset))
        for preset in pushed.presets
    ]
    show_table(("preset", "default", "prebuilds", "parameters"), rows)


@app.command("list")
def list_(*, organization: Organization = "", output: Output = Format.TABLE) -> None:
    """List the templates of the organization."""

    async def work(client: PrebuildsClient, organization: str) -> list[template_pb2.Template]:
        request = template_service_pb2.ListTemplatesRequest(organization=organization)
        found: list[template_pb2.Template] = []
        while True:
            page = await client.call(client.templates.ListTemplates, request)
            found.extend(page.templates)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    templates = run(work, organization=organization)
    if output is Format.JSON:
        show_json(templates)
        return
    rows = [
        (
            each.name,
            each.active_version_name or "-",
            word(template_pb2.ClaimStrategy, each.claim_strategy, "CLAIM_STRATEGY_"),
            age(each.create_time),
            each.description,
        )
        for each in templates
    ]
    show_table(("name", "version", "claims", "age", "description"), rows)


def _instances(preset: template_pb2.Preset) -> str:
    return str(preset.prebuilds.instances) if preset.HasField("prebuilds") else "-"


def _parameters(preset: template_pb2.Preset) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(preset.parameters.items()))
