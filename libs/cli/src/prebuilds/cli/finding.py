"""What people mean by a name: templates, versions, and pools as `<template>/<preset>`; an id is taken everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Final, NoReturn
from uuid import UUID

import typer

from prebuilds.cli.connection import EXIT_USAGE, fail
from prebuilds.cli.paging import pages
from prebuilds.domain.names import is_id, is_name
from prebuilds.domain.refusals import Reason
from prebuilds.sdk.client import PrebuildsClient
from prebuilds.sdk.errors import PrebuildsError
from prebuilds.v1 import pool_pb2, pool_service_pb2, template_pb2, template_service_pb2

_SHOWN: Final = 10  # names in a message

TemplateName = Annotated[str, typer.Argument(metavar="TEMPLATE", help="Name or id of the template.")]
PoolName = Annotated[
    str,
    typer.Argument(
        metavar="TEMPLATE/PRESET", help="The pool; or its id; or TEMPLATE, by name or id, where it has only one."
    ),
]
VersionName = Annotated[
    str, typer.Option("--version", "-V", help="The pool of that version; default: of the active one.")
]


async def pools_of(client: PrebuildsClient, organization: str, filter_: str = "") -> list[pool_pb2.Pool]:
    """All pools of the organization that the filter lets through."""
    request = pool_service_pb2.ListPoolsRequest(organization=organization, filter=filter_)
    return [pool async for page in pages(client, client.pools.ListPools, request) for pool in page.pools]


async def presets_of(
    client: PrebuildsClient, organization: str, template: str, version: str = ""
) -> list[template_pb2.Preset]:
    """All presets of a version, or of the active one."""
    request = template_service_pb2.ListPresetsRequest(organization=organization, template=template, version=version)
    return [preset async for page in pages(client, client.templates.ListPresets, request) for preset in page.presets]


async def templates_of(
    client: PrebuildsClient, organization: str, filter_: str = "", *, show_deleted: bool = False
) -> list[template_pb2.Template]:
    """All templates of the organization that the filter lets through."""
    request = template_service_pb2.ListTemplatesRequest(
        organization=organization, filter=filter_, show_deleted=show_deleted
    )
    return [each async for page in pages(client, client.templates.ListTemplates, request) for each in page.templates]


async def versions_of(client: PrebuildsClient, organization: str, template: str) -> list[template_pb2.TemplateVersion]:
    """All versions of a template, newest first."""
    request = template_service_pb2.ListTemplateVersionsRequest(organization=organization, template=template)
    return [
        version
        async for page in pages(client, client.templates.ListTemplateVersions, request)
        for version in page.versions
    ]


async def find_template(client: PrebuildsClient, organization: str, which: str) -> template_pb2.Template:
    """The template of that name or id; a deleted one by its id only."""
    if is_id(which):
        request = template_service_pb2.GetTemplateRequest(id=which)
        return (await client.call(client.templates.GetTemplate, request)).template
    found = await templates_of(client, organization, f"name={which}") if is_name(which) else []
    if not found:
        fail(f"there is no template {which!r} in {organization} [NOT_FOUND]")
    return found[0]


async def find_pool(client: PrebuildsClient, organization: str, which: str, version: str = "") -> pool_pb2.Pool:
    """The pool of `<template>/<preset>`, of an id, or the only one of a template; of the active version if it has one.

    Without one the pool of an older version is found that still has prebuilds.
    """
    template, slash, preset = which.partition("/")
    if is_id(which):
        found = await _of_id(client, which)
        if isinstance(found, pool_pb2.Pool):
            return _checked(found, version)
        organization = found.organization_id
    if is_id(template):
        template = str(UUID(template))  # filters know no other way to write it
    if not (is_name(template) or is_id(template)) or (slash and not preset):
        fail(f"{which!r} names no pool: that is TEMPLATE/PRESET, such as python-dev/small, or an id", EXIT_USAGE)
    filter_ = f"template={template}" + (f" AND version={version}" if version else "")
    pools = await pools_of(client, organization, filter_)
    meant = [pool for pool in pools if pool.name == preset or not preset]
    meant = [pool for pool in meant if pool.active] or meant
    if len(meant) > 1 and not meant[0].active:
        current = (await find_template(client, organization, meant[0].template_id)).active_version_id
        meant = [pool for pool in meant if pool.version_id == current] or meant
    if not meant:
        return await _unlisted_pool(client, organization, template, preset, version)
    if len(meant) > 1:
        fail(f"{which} is not one pool, but {_several(meant)}", EXIT_USAGE)
    return meant[0]


async def find_reach(
    client: PrebuildsClient, organization: str, which: str, version: str = ""
) -> pool_pb2.Pool | template_pb2.Template:
    """The pool of `<template>/<preset>` or of an id, or the template of a name or an id: all of its pools are meant.

    A version that is named with a template ends the program with 2.
    """
    if "/" in which:
        return await find_pool(client, organization, which, version)
    found = await (_of_id(client, which) if is_id(which) else find_template(client, organization, which))
    if isinstance(found, pool_pb2.Pool):
        return _checked(found, version)
    if version:
        refuse_version()
    return found


def refuse_version() -> NoReturn:
    """End the program with 2: a version was named where not a single pool is meant."""
    fail("--version goes with a single pool: say TEMPLATE/PRESET", EXIT_USAGE)


def pool_name(pool: pool_pb2.Pool) -> str:
    """What people call a pool."""
    return f"{pool.template_name}/{pool.name}"


async def _unlisted_pool(
    client: PrebuildsClient, organization: str, template: str, preset: str, version: str
) -> pool_pb2.Pool:
    """A pool that is inactive and empty; without one, ends with what is wrong with the name."""
    presets = await presets_of(client, organization, template, version)
    having_pools = [each for each in presets if each.HasField("prebuilds")]
    if not preset and len(having_pools) == 1:
        return await _pool(client, having_pools[0].id)
    found = next((each for each in presets if each.name == preset), None)
    if found is None:
        having = _some(f"{template}/{each.name}" for each in having_pools)
        if having and not preset:
            fail(f"{template} is not one pool, but {having}", EXIT_USAGE)
        what = f"no preset {preset!r}" if preset else "no pool with prebuilds"
        fail(f"{template} has {what}{f'; its pools: {having}' if having else ''} [NOT_FOUND]")
    if not found.HasField("prebuilds"):
        fail(f"{template}/{preset} asks for no prebuilds: it has no pool [NOT_FOUND]")
    return await _pool(client, found.id)


async def _of_id(client: PrebuildsClient, which: str) -> pool_pb2.Pool | template_pb2.Template:
    try:
        return await _pool(client, which)
    except PrebuildsError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
    try:
        return (
            await client.call(client.templates.GetTemplate, template_service_pb2.GetTemplateRequest(id=which))
        ).template
    except PrebuildsError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        fail(f"there is no pool and no template {which!r} [NOT_FOUND]")


def _checked(pool: pool_pb2.Pool, version: str) -> pool_pb2.Pool:
    """The pool of an id; that of another version than was named was not meant."""
    if version not in {"", pool.version_name, pool.version_id}:
        fail(f"{pool.id} is the pool of {pool.version_name}, not of {version!r}", EXIT_USAGE)
    return pool


async def _pool(client: PrebuildsClient, pool_id: str) -> pool_pb2.Pool:
    return (await client.call(client.pools.GetPool, pool_service_pb2.GetPoolRequest(id=pool_id))).pool


def _several(pools: Sequence[pool_pb2.Pool]) -> str:
    if len({pool.name for pool in pools}) > 1:
        return _some(sorted({pool_name(pool) for pool in pools}))
    return f"one in each of {_some(pool.version_name for pool in pools)}: choose by --version"


def _some(names: Iterable[str]) -> str:
    all_ = list(names)
    return ", ".join(all_[:_SHOWN]) + (", ..." if len(all_) > _SHOWN else "")
