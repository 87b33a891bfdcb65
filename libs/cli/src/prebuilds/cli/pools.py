"""`prebuilds pools`: looking at them here, steering them in `steering`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from prebuilds.cli import steering
from prebuilds.cli.connection import EXIT_USAGE, Organization, fail, run
from prebuilds.cli.explaining import Surroundings, explain
from prebuilds.cli.finding import PoolName, VersionName, find_pool, find_reach, pools_of
from prebuilds.cli.moments import MomentError, read_moment, timestamp_of, zone_of
from prebuilds.cli.output import Format, Output, show_facts, show_json, show_table
from prebuilds.cli.watching import HEADERS, follow, in_order, row
from prebuilds.domain.names import is_id
from prebuilds.sdk.client import PrebuildsClient
from prebuilds.v1 import pool_pb2, pool_service_pb2, template_pb2, template_service_pb2

app = typer.Typer(help="The prebuilds of each preset.", no_args_is_help=True)

_JOINED: Final = " AND "

Filter = Annotated[
    str, typer.Option("--filter", help="Such as `blocked=true`, `status=hard_limited`, `template=T AND active=true`.")
]


@app.command("list")
def list_(
    *,
    filter_: Filter = "",
    watch_: Annotated[bool, typer.Option("--watch", "-w", help="The same as `pools watch`.")] = False,
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """List the pools of the organization."""
    if watch_:
        watch(filter_=filter_, organization=organization, output=output)
        return

    async def work(client: PrebuildsClient, organization: str) -> list[pool_pb2.Pool]:
        return await pools_of(client, organization, filter_)

    pools = run(work, organization=organization)
    if output is Format.JSON:
        show_json(pools)
    else:
        show_table(HEADERS, map(row, in_order({pool.id: pool for pool in pools})))


@app.command()
def show(
    pool: PoolName, *, version: VersionName = "", organization: Organization = "", output: Output = Format.TABLE
) -> None:
    """Explain a pool: its target and why, what is next and when, what blocks it and since when."""

    async def work(client: PrebuildsClient, organization: str) -> tuple[pool_pb2.Pool, Surroundings]:
        found = await find_pool(client, organization, pool, version)
        return found, await _surroundings(client, found)

    found, surroundings = run(work, organization=organization)
    if output is Format.JSON:
        show_json(found)
    else:
        show_facts(explain(found, surroundings))


@app.command()
def plan(
    pool: PoolName,
    *,
    at: Annotated[
        str | None,
        typer.Option(
            help="`2026-12-24 09:00`, `09:00` or `+2h30m`; in the zone of the pool's schedules, else UTC, unless it has"
            " an offset. Default: now."
        ),
    ] = None,
    version: VersionName = "",
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """Tell what the reconciler would do with a pool, now or at another moment; nothing is done.

    The prebuilds are those of now; schedules, ages and failures are as of that moment.
    """

    async def work(
        client: PrebuildsClient, organization: str
    ) -> tuple[pool_service_pb2.PlanPoolResponse, Surroundings]:
        found = await find_pool(client, organization, pool, version)
        surroundings = await _surroundings(client, found)
        request = pool_service_pb2.PlanPoolRequest(id=found.id)
        if at is not None:
            moment = read_moment(at, zone_of(surroundings.preset.prebuilds.timezone), datetime.now(UTC))
            request.plan_time.CopyFrom(timestamp_of(moment))
        return await client.call(client.pools.PlanPool, request), surroundings

    try:
        planned, surroundings = run(work, organization=organization)
    except MomentError as error:
        fail(f"--at: {error}", EXIT_USAGE)
    if output is Format.JSON:
        show_json(planned)
    else:
        show_facts(explain(planned.pool, surroundings, can_skip=planned.can_skip))


@app.command()
def watch(
    pools: Annotated[
        str, typer.Argument(metavar="TEMPLATE[/PRESET]", help="Which; default: all of the organization.")
    ] = "",
    *,
    filter_: Filter = "",
    until_full: Annotated[
        bool,
        typer.Option(
            "--until-full", help="End when all active ones are full; with 1 where one cannot become so by itself."
        ),
    ] = False,
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """Show pools as they change, until Ctrl-C: a table on a terminal, else a line for each change."""

    async def work(client: PrebuildsClient, organization: str) -> None:
        parts = [filter_] if filter_ else []
        if pools:
            parts.append(await _filter_for(client, organization, pools))
        await follow(client, organization, _JOINED.join(parts), output, until_full=until_full)

    run(work, organization=organization)


for _command in (
    steering.pause,
    steering.resume,
    steering.invalidate,
    steering.retry,
    steering.reconcile,
):
    app.command()(_command)


async def _surroundings(client: PrebuildsClient, pool: pool_pb2.Pool) -> Surroundings:
    preset = template_service_pb2.GetPresetRequest(id=pool.id)
    template = template_service_pb2.GetTemplateRequest(id=pool.template_id)
    return Surroundings(
        (await client.call(client.templates.GetPreset, preset)).preset,
        (await client.call(client.templates.GetTemplate, template)).template,
    )


async def _filter_for(client: PrebuildsClient, organization: str, pools: str) -> str:
    """By name where possible: so the pool of a version that comes later is seen, too."""
    found = await find_reach(client, organization, pools)
    if isinstance(found, template_pb2.Template):
        return f"template={found.id if found.deleted else found.name}"
    if is_id(pools) or _JOINED in found.name:
        return f"preset={found.id}"
    return f"template={found.template_name}{_JOINED}preset={found.name}"
