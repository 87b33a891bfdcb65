"""`prebuilds workspaces`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final
from uuid import UUID

import typer

from prebuilds.cli.connection import EXIT_USAGE, Organization, fail, run
from prebuilds.cli.output import Format, Output, age, console, json_line, show_facts, show_json, show_table, word
from prebuilds.sdk.client import PrebuildsClient
from prebuilds.v1 import agent_pb2, claim_pb2, reason_pb2, template_service_pb2, workspace_pb2, workspace_service_pb2

app = typer.Typer(help="Places to work: create, which claims; list, show, delete.", no_args_is_help=True)

_MODES: Final = {
    "prefer-warm": claim_pb2.CLAIM_MODE_PREFER_WARM,
    "require-warm": claim_pb2.CLAIM_MODE_REQUIRE_WARM,
    "cold": claim_pb2.CLAIM_MODE_COLD,
}

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Stay until it is done, and tell each step.")]
Which = Annotated[str, typer.Argument(help="Id, or name of a workspace of your own.")]


@app.command()
def create(
    template: Annotated[str, typer.Argument(help="Name or id of the template.")],
    *,
    preset: Annotated[
        str,
        typer.Option(help="Name or id of the preset; default: found by the parameters; without any, the default one."),
    ] = "",
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="A value, NAME=VALUE; may be repeated.")
    ] = None,
    name: Annotated[str, typer.Option(help="Default: the template's name and six characters.")] = "",
    owner: Annotated[str, typer.Option(help="Name or id of who shall own it; default: you.")] = "",
    mode: Annotated[str, typer.Option(help=f"When no prebuild is eligible: {', '.join(_MODES)}.")] = "prefer-warm",
    request_id: Annotated[str, typer.Option(help="Makes repeating safe; default: a new one.")] = "",
    watch: Watch = False,
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """Get a workspace: a prebuild if one is eligible, else one that is built for you."""
    if mode not in _MODES:
        fail(f"--mode must be one of {', '.join(_MODES)}", EXIT_USAGE)
    parameters = _parameters(parameter or [])

    async def work(client: PrebuildsClient, organization: str) -> None:
        created = await client.create_workspace(
            organization,
            template,
            preset=preset or ("" if parameters else await _default_preset(client, organization, template)),
            parameters=parameters,
            name=name,
            owner=owner,
            mode=_MODES[mode],
            request_id=request_id,
        )
        if output is Format.JSON and not watch:
            show_json(created)
        elif output is Format.JSON:
            json_line(created)
        else:
            console.print(f"{created.workspace.name} {_outcome(created)} ({created.workspace.id})")
        if watch:
            await _follow(client.watch_workspace(created.workspace.id), output)

    run(work, organization=organization)


@app.command("list")
def list_(
    *,
    filter_: Annotated[
        str, typer.Option("--filter", help="Such as `owner=me AND status=running`, or `is_prebuild=any`.")
    ] = "",
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """List workspaces: your own, or all of the organization where you may see them."""

    async def work(client: PrebuildsClient, organization: str) -> list[workspace_pb2.Workspace]:
        return await workspaces_of(client, organization, filter_)

    found = run(work, organization=organization)
    if output is Format.JSON:
        show_json(found)
        return
    rows = [
        (each.name, each.owner_name, each.template_name, _status(each), age(each.create_time), each.id)
        for each in found
    ]
    show_table(("name", "owner", "template", "status", "age", "id"), rows)


@app.command()
def show(which: Which, *, organization: Organization = "", output: Output = Format.TABLE) -> None:
    """Show one workspace with its agents."""

    async def work(client: PrebuildsClient, organization: str) -> workspace_pb2.Workspace:
        return await _find(client, organization, which)

    found = run(work, organization=organization)
    if output is Format.JSON:
        show_json(found)
        return
    build = found.latest_build
    facts = {
        "name": found.name,
        "id": found.id,
        "owner": found.owner_name,
        "template": f"{found.template_name} {build.version_name}",
        "preset": build.preset_name or "-",
        "status": _status(found),
        "latest build": f"{build.number} {word(workspace_pb2.Transition, build.transition, 'TRANSITION_')}, "
        f"{word(workspace_pb2.BuildStatus, build.status, 'BUILD_STATUS_')}",
        "parameters": " ".join(f"{name}={value}" for name, value in sorted(build.parameters.items())) or "-",
        "age": age(found.create_time),
        "claimed": f"{age(found.claim_time)} ago" if found.HasField("claim_time") else "-",
    }
    show_facts(facts)
    agents = [
        (agent.name, word(agent_pb2.AgentState, agent.state, "AGENT_STATE_"), str(agent.incarnation), agent.error)
        for agent in found.agents
    ]
    show_table(("agent", "state", "incarnation", "error"), agents)


@app.command()
def delete(
    which: Which, *, watch: Watch = False, organization: Organization = "", output: Output = Format.TABLE
) -> None:
    """Delete a workspace and everything in it."""

    async def work(client: PrebuildsClient, organization: str) -> None:
        found = await _find(client, organization, which)
        deleted = await client.call(
            client.workspaces.DeleteWorkspace, workspace_service_pb2.DeleteWorkspaceRequest(id=found.id)
        )
        if output is Format.JSON and not watch:
            show_json(deleted)
        elif output is Format.TABLE:
            console.print(f"{found.name} is being deleted")
        if watch:
            await _follow(client.watch_workspace(found.id), output)

    run(work, organization=organization)


async def workspaces_of(client: PrebuildsClient, organization: str, filter_: str) -> list[workspace_pb2.Workspace]:
    """All workspaces that the filter lets through."""
    request = workspace_service_pb2.ListWorkspacesRequest(organization=organization, filter=filter_)
    found: list[workspace_pb2.Workspace] = []
    while True:
        page = await client.call(client.workspaces.ListWorkspaces, request)
        found.extend(page.workspaces)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def _default_preset(client: PrebuildsClient, organization: str, template: str) -> str:
    """Find what a person means who names neither preset nor parameter; empty where the template has no default."""
    request = template_service_pb2.ListPresetsRequest(organization=organization, template=template)
    presets = (await client.call(client.templates.ListPresets, request)).presets
    return next((preset.id for preset in presets if preset.is_default), "")


async def _find(client: PrebuildsClient, organization: str, which: str) -> workspace_pb2.Workspace:
    if not _is_id(which):
        named = await workspaces_of(client, organization, f"name={which} AND owner=me")
        if not named:
            fail(f"you have no workspace {which!r} in {organization}")
        which = named[0].id
    request = workspace_service_pb2.GetWorkspaceRequest(id=which)
    return (await client.call(client.workspaces.GetWorkspace, request)).workspace


async def _follow(states: AsyncGenerator[workspace_service_pb2.WatchWorkspaceResponse], output: Format) -> None:
    told = ""
    async with aclosing(states):
        async for state in states:
            if output is Format.JSON:
                json_line(state)
                continue
            line = _step(state)
            if line != told:
                told = line
                console.print(line)


def _step(state: workspace_service_pb2.WatchWorkspaceResponse) -> str:
    parts = [state.workspace.name, _status(state.workspace)]
    if state.HasField("claim"):
        parts.append("claim " + word(claim_pb2.ClaimState, state.claim.state, "CLAIM_STATE_").replace("_", " "))
    parts += [
        f"agent {agent.name} {word(agent_pb2.AgentState, agent.state, 'AGENT_STATE_')}"
        for agent in state.workspace.agents
    ]
    return "  ".join(parts)


def _status(workspace: workspace_pb2.Workspace) -> str:
    status = word(workspace_pb2.WorkspaceStatus, workspace.status, "WORKSPACE_STATUS_")
    return "ready" if workspace.ready else status


def _outcome(created: workspace_service_pb2.CreateWorkspaceResponse) -> str:
    if created.outcome == claim_pb2.CREATION_OUTCOME_HIT:
        return "is yours: claimed from the pool"
    reason = word(reason_pb2.Reason, created.miss_reason, "REASON_").replace("_", " ")
    return f"is being built: {reason}"


def _parameters(given: list[str]) -> dict[str, str]:
    wrong = [each for each in given if "=" not in each]
    if wrong:
        fail(f"not NAME=VALUE: {', '.join(wrong)}", EXIT_USAGE)
    names = [each.partition("=")[0] for each in given]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        fail(f"given more than once: {', '.join(twice)}", EXIT_USAGE)
    return {name: value for name, _, value in (each.partition("=") for each in given)}


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
