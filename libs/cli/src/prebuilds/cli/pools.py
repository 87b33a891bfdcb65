"""`prebuilds pools`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer
from rich.live import Live

from prebuilds.cli.connection import Organization, run
from prebuilds.cli.output import Format, Output, console, json_line, show_json, show_table, table, word
from prebuilds.sdk.client import PrebuildsClient
from prebuilds.v1 import pool_pb2, pool_service_pb2

app = typer.Typer(help="The prebuilds of each preset.", no_args_is_help=True)

_REFRESH: Final = 1.0  # seconds
_HEADERS: Final = (
    *("template", "version", "preset", "target", "eligible", "running", "starting", "deleting", "failed"),
    "blocked by",
)


@app.command("list")
def list_(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing them until Ctrl-C.")] = False,
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """List the pools of the organization."""

    async def work(client: PrebuildsClient, organization: str) -> None:
        if watch:
            await _watch(client, organization, output)
            return
        pools = await pools_of(client, organization)
        if output is Format.JSON:
            show_json(pools)
        else:
            show_table(_HEADERS, map(_row, pools))

    run(work, organization=organization)


async def pools_of(client: PrebuildsClient, organization: str) -> list[pool_pb2.Pool]:
    """All pools of the organization."""
    request = pool_service_pb2.ListPoolsRequest(organization=organization)
    found: list[pool_pb2.Pool] = []
    while True:
        page = await client.call(client.pools.ListPools, request)
        found.extend(page.pools)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def _watch(client: PrebuildsClient, organization: str, output: Format) -> None:
    if output is Format.JSON:
        shown: dict[str, pool_pb2.Pool] = {}
        while True:
            for pool in await pools_of(client, organization):
                seen = pool_pb2.Pool()
                seen.CopyFrom(pool)
                seen.ClearField("snapshot_time")
                if shown.get(pool.id) != seen:
                    shown[pool.id] = seen
                    json_line(pool)
            await asyncio.sleep(_REFRESH)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(table(_HEADERS, map(_row, await pools_of(client, organization))), refresh=True)
            await asyncio.sleep(_REFRESH)


def _row(pool: pool_pb2.Pool) -> tuple[str, ...]:
    blocks = (word(pool_pb2.BlockKind, block.kind, "BLOCK_KIND_").replace("_", " ") for block in pool.blocked_by)
    counts = (
        pool.target.instances,
        pool.counts.eligible,
        pool.counts.actual,
        pool.counts.starting,
        pool.counts.deleting,
        pool.counts.failed,
    )
    return (pool.template_name, pool.version_name, pool.name, *map(str, counts), ", ".join(blocks) or "-")
