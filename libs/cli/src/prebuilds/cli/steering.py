"""`prebuilds pools`: pause, resume, invalidate, retry, reconcile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from prebuilds.cli.confirming import Yes, confirm
from prebuilds.cli.connection import EXIT_USAGE, Organization, fail, run
from prebuilds.cli.explaining import describe_block
from prebuilds.cli.finding import (
    PoolName,
    VersionName,
    find_pool,
    find_reach,
    find_template,
    pool_name,
    pools_of,
    refuse_version,
)
from prebuilds.cli.moments import time_of, zone_of
from prebuilds.cli.output import Format, Output, age, console, printable, show_facts, show_json
from prebuilds.sdk.client import PrebuildsClient
from prebuilds.v1 import pool_pb2, pool_service_pb2, template_pb2

Pools = Annotated[
    str, typer.Argument(metavar="TEMPLATE[/PRESET]", help="A pool, or all pools of a template, of all its versions.")
]
Template = Annotated[str, typer.Option("--template", help="All pools of this template, by its name or id.")]
Deployment = Annotated[bool, typer.Option("--deployment", help="All pools of all organizations; for operators only.")]


@dataclass(frozen=True, slots=True)
class _Reach:
    """What a pause reaches, with the name that people know it by."""

    scope: pool_pb2.PauseScope.ValueType
    target_id: str
    name: str
    filter: str


def pause(
    pools: Pools = "",
    *,
    template: Template = "",
    deployment: Deployment = False,
    message: Annotated[str, typer.Option("--message", "-m", help="Why, for others to read.")] = "",
    version: VersionName = "",
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """Keep the reconciler from working on pools until they are resumed.

    Claims and queued builds go on. The pause of a pool stays with the pool of that version: that of a new version is
    not paused. The pause of a template reaches all its versions.
    """
    _exactly_one(pools, template, version, deployment=deployment)

    async def work(
        client: PrebuildsClient, organization: str
    ) -> tuple[_Reach, pool_service_pb2.PauseReconciliationResponse]:
        reach = await _reach(client, organization, pools, template, version)
        request = pool_service_pb2.PauseReconciliationRequest(
            scope=reach.scope, target_id=reach.target_id, message=message
        )
        return reach, await client.call(client.pools.PauseReconciliation, request)

    reach, paused = run(work, organization=organization)
    if output is Format.JSON:
        show_json(paused)
        return
    taken = paused.pause.message == message
    already, not_taken = ("is", "") if taken else ("was already", "; your message was not taken" if message else "")
    console.print(printable(f"{reach.name} {already} paused, {_by(paused.pause)}{not_taken}"))


def resume(
    pools: Pools = "",
    *,
    template: Template = "",
    deployment: Deployment = False,
    version: VersionName = "",
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """End a pause; others that reach the same pools stay, and are named."""
    _exactly_one(pools, template, version, deployment=deployment)

    async def work(
        client: PrebuildsClient, organization: str
    ) -> tuple[_Reach, pool_service_pb2.ResumeReconciliationResponse, list[pool_pb2.Pool]]:
        reach = await _reach(client, organization, pools, template, version)
        request = pool_service_pb2.ResumeReconciliationRequest(scope=reach.scope, target_id=reach.target_id)
        resumed = await client.call(client.pools.ResumeReconciliation, request)
        concerned = [] if deployment else await pools_of(client, organization, reach.filter)
        return reach, resumed, concerned

    reach, resumed, concerned = run(work, organization=organization)
    if output is Format.JSON:
        show_json(resumed)
        return
    if resumed.HasField("ended_pause"):
        console.print(printable(f"{reach.name} is resumed; it was paused {_by(resumed.ended_pause)}"))
    else:
        console.print(f"{reach.name} was not paused")
    for pool in concerned:
        for block in pool.blocked_by:
            if block.kind == pool_pb2.BLOCK_KIND_PAUSED:
                told = describe_block(block, zone_of(""), time_of(pool.snapshot_time))
                console.print(f"{pool_name(pool)} still is {told}")


def invalidate(
    template: Annotated[str, typer.Argument(metavar="TEMPLATE[/PRESET]", help="The template, by name or id.")],
    presets: Annotated[
        list[str] | None, typer.Argument(metavar="PRESET", help="Default: all of the active version.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")] = False,
    yes: Yes = False,
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """Declare the present prebuilds of presets expired: none of them is claimed any more, and all are replaced."""
    template_name, slash, first = template.partition("/")
    named = [first, *(presets or ())] if slash else list(presets or ())
    if "" in named:
        fail(f"{template!r} names no preset", EXIT_USAGE)

    async def work(
        client: PrebuildsClient, organization: str
    ) -> tuple[template_pb2.Template, pool_service_pb2.InvalidatePresetsResponse]:
        found = await find_template(client, organization, template_name)
        request = pool_service_pb2.InvalidatePresetsRequest(
            organization=organization, template=found.id, presets=named, validate_only=True
        )
        if dry_run or not yes:
            counted = await client.call(client.pools.InvalidatePresets, request)
            if dry_run:
                return found, counted
            confirm(f"Replace {_prebuilds(counted.prebuild_count)} of {_presets(counted, found)}?")
        request.validate_only = False
        return found, await client.call(client.pools.InvalidatePresets, request)

    found, done = run(work, organization=organization)
    if output is Format.JSON:
        show_json(done)
        return
    what = "would expire" if dry_run else "expired"
    console.print(f"{_prebuilds(done.prebuild_count)} of {_presets(done, found)} {what}")


def retry(
    pool: PoolName, *, version: VersionName = "", organization: Organization = "", output: Output = Format.TABLE
) -> None:
    """Let one prebuild of a hard limited pool be tried; if it succeeds, the pool is filled again."""

    async def work(client: PrebuildsClient, organization: str) -> pool_pb2.Pool:
        found = await find_pool(client, organization, pool, version)
        request = pool_service_pb2.RetryPresetRequest(id=found.id)
        return (await client.call(client.pools.RetryPreset, request)).pool

    found = run(work, organization=organization)
    if output is Format.JSON:
        show_json(found)
    if not found.active:
        fail(f"{pool_name(found)} {found.version_name}: not retried: it is not active")
    if found.status == template_pb2.PRESET_STATUS_VALIDATION_FAILED:
        fail(f"{pool_name(found)}: not retried: it is invalid and needs a new version")
    if output is Format.TABLE:
        console.print(f"{pool_name(found)}: {told_of_retry(found)}")


def reconcile(
    pools: Pools = "",
    *,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="In all organizations; for operators only.")] = False,
    version: VersionName = "",
    organization: Organization = "",
    output: Output = Format.TABLE,
) -> None:
    """Run one pass over pools now, wait for it, and tell what it did."""
    if pools and everywhere:
        fail("name pools, or say --everywhere", EXIT_USAGE)
    if version and not pools:
        refuse_version()

    async def work(client: PrebuildsClient, organization: str) -> pool_pb2.PassStatistics:
        request = pool_service_pb2.ReconcileNowRequest(organization="" if everywhere else organization)
        if pools:
            found = await find_reach(client, organization, pools, version)
            request.organization = found.organization_id
            if isinstance(found, template_pb2.Template):
                request.template = found.id
            else:
                request.preset_ids.append(found.id)
        return (await client.call(client.pools.ReconcileNow, request)).statistics

    statistics = run(work, organization=organization)
    if output is Format.JSON:
        show_json(statistics)
    else:
        show_facts(_told(statistics))


def told_of_retry(pool: pool_pb2.Pool) -> str:
    """What comes of a retry of an active pool, which is as the retry has left it."""
    blocks = {block.kind for block in pool.blocked_by}
    if pool_pb2.BLOCK_KIND_HARD_LIMITED not in blocks:
        return "not retried: it is not hard limited"
    counts = pool.counts
    if pool_pb2.BLOCK_KIND_PAUSED in blocks:
        return "one prebuild is tried once it is resumed"
    if counts.starting:
        return "one prebuild is tried"
    if counts.actual - counts.expired >= pool.target.instances:
        return "one prebuild is tried once more are wanted than there are"
    if pool_pb2.BLOCK_KIND_OVER_QUOTA in blocks:
        return "one prebuild is tried as soon as the quota has room for it"
    return "one prebuild is tried"


def _exactly_one(pools: str, template: str, version: str, *, deployment: bool) -> None:
    if sum((bool(pools), bool(template), deployment)) != 1:
        fail("say one of TEMPLATE, TEMPLATE/PRESET, --template and --deployment", EXIT_USAGE)
    if version and not pools:
        refuse_version()


async def _reach(client: PrebuildsClient, organization: str, pools: str, template: str, version: str) -> _Reach:
    if pools:
        found = await find_reach(client, organization, pools, version)
    elif template:
        found = await find_template(client, organization, template)
    else:
        return _Reach(pool_pb2.PAUSE_SCOPE_DEPLOYMENT, "", "the deployment", "")
    if isinstance(found, template_pb2.Template):
        return _Reach(pool_pb2.PAUSE_SCOPE_TEMPLATE, found.id, found.name, f"template={found.id}")
    name = pool_name(found) if found.active else f"{pool_name(found)} {found.version_name}"
    return _Reach(pool_pb2.PAUSE_SCOPE_PRESET, found.id, name, f"preset={found.id}")


def _by(pause_: pool_pb2.Pause) -> str:
    message = f": {pause_.message}" if pause_.message else ""
    return f"by {pause_.creator_name or 'somebody'} {age(pause_.create_time)} ago{message}"


def _presets(done: pool_service_pb2.InvalidatePresetsResponse, template: template_pb2.Template) -> str:
    number = len(done.preset_ids)
    return f"{number} {'preset' if number == 1 else 'presets'} of {template.name}"


def _prebuilds(number: int) -> str:
    return f"{number} {'prebuild' if number == 1 else 'prebuilds'}"


def _told(statistics: pool_pb2.PassStatistics) -> dict[str, str]:
    counts = (
        (statistics.presets_reconciled, "worked on"),
        (statistics.presets_skipped, "skipped, nothing to do"),
        (statistics.presets_paused, "paused"),
        (statistics.presets_held_elsewhere, "held by another replica"),
        (statistics.presets_failed, "failed, see the log"),
        (statistics.backing_off, "backing off"),
    )
    took = statistics.duration.ToTimedelta().total_seconds()
    snapshot = statistics.snapshot_duration.ToTimedelta().total_seconds()
    return {
        "pools": ", ".join(
            [f"{statistics.presets_seen} seen", *(f"{number} {what}" for number, what in counts if number)]
        ),
        "prebuilds": f"{statistics.created} created, {statistics.deleted} deleted, {statistics.canceled} cancelled",
        "took": f"{took * 1000:.0f} ms, of which the snapshot {snapshot * 1000:.0f} ms",
    }
