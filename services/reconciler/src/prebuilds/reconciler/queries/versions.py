"""Versions with their presets: reading them, and writing them, which the reconciler does alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from psycopg.errors import UniqueViolation
from sqlalchemy import func, insert, select

from prebuilds.domain.ids import OrganizationId, TemplateId, UserId, VersionId
from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.queries.views import PresetView, VersionRow
from prebuilds.reconciler.rules.manifest import Manifest, PresetSpec
from prebuilds.store.faults import constraint_of
from prebuilds.store.schema import Preset, PresetParameter, PresetSchedule, TemplateParameter, TemplateVersion
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_NAME_TAKEN: Final = "uq_template_versions_template_id_name"

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What is stored of a version besides its manifest."""

    id: VersionId
    organization_id: OrganizationId
    template_id: TemplateId
    number: int
    name: str
    source_archive: bytes
    created_by: UserId


async def find_versions(
    tx: Transaction,
    *,
    id_: UUID | None = None,
    template_id: TemplateId | None = None,
    named: str | None = None,
    name: str | None = None,
    is_active: bool | None = None,
    before: int | None = None,
    limit: int = 1,
) -> Sequence[VersionRow]:
    """Find versions, newest first; `named` is a name or an id, `before` the last number of the page before."""
    parameters = {
        "id": id_,
        "template_id": template_id,
        "named": named,
        "name": name,
        "is_active": is_active,
        "before": before,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_versions"], parameters, row=VersionRow)


async def find_presets(
    tx: Transaction,
    *,
    id_: UUID | None = None,
    version_id: VersionId | None = None,
    name: str | None = None,
    status: PresetStatus | None = None,
    has_pool: bool | None = None,
    after: tuple[bool, str] | None = None,
    limit: int = 1,
) -> Sequence[PresetView]:
    """Find presets, the default one first, then by name; `after` is that of the last one of the page before."""
    parameters = {
        "id": id_,
        "version_id": version_id,
        "name": name,
        "status": status,
        "has_pool": has_pool,
        "after_default": after[0] if after else None,
        "after": after[1] if after else None,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_presets"], parameters, row=PresetView)


async def lock_pools(tx: Transaction, version_ids: Iterable[VersionId | None]) -> None:
    """Lock the presets of these versions that have pools, by id; waits for who works on one of them.

    Whoever makes versions active or inactive does: a pass that read a pool before then has committed what it made,
    for the next pass to see, and who locks the preset later reads it anew.
    """
    concerned = [id_ for id_ in version_ids if id_ is not None]
    if concerned:
        statement = select(Preset.id).where(Preset.version_id.in_(concerned), Preset.desired_instances.is_not(None))
        await tx.execute(statement.order_by(Preset.id).with_for_update(key_share=True))


async def next_number(tx: Transaction, template_id: TemplateId) -> int:
    """The number of a locked template's next version, from 1."""
    statement = select(func.coalesce(func.max(TemplateVersion.number), 0))
    return (await tx.scalar(statement.where(TemplateVersion.template_id == template_id)) or 0) + 1


async def insert_version(tx: Transaction, version: NewVersion, manifest: Manifest) -> None:
    """Insert a version of a locked template with its parameters and presets. Refuses NAME_TAKEN."""
    try:
        await tx.execute(
            insert(TemplateVersion).values(
                id=version.id,
                organization_id=version.organization_id,
                template_id=version.template_id,
                number=version.number,
                name=version.name,
                backend=manifest.backend,
                agents=manifest.agents,
                manifest=manifest.model_dump(mode="json"),
                source_archive=version.source_archive,
                created_by=version.created_by,
            )
        )
    except UniqueViolation as violation:
        if constraint_of(violation) != _NAME_TAKEN:
            raise
        raise Refusal(Reason.NAME_TAKEN, f"the template has a version named {version.name!r}") from violation
    await _insert_parameters(tx, version, manifest)
    if manifest.presets:
        await _insert_presets(tx, version, manifest)


async def _insert_parameters(tx: Transaction, version: NewVersion, manifest: Manifest) -> None:
    parameters = [
        {
            "version_id": version.id,
            "name": parameter.name,
            "ordinal": ordinal,
            "type": parameter.type.value,
            "description": parameter.description,
            "default_value": parameter.default,
            "mutable": parameter.mutable,
            "options": parameter.options,
        }
        for ordinal, parameter in enumerate(manifest.parameters)
    ]
    if parameters:
        await tx.execute(insert(TemplateParameter).values(parameters))


async def _insert_presets(tx: Transaction, version: NewVersion, manifest: Manifest) -> None:
    ids = {preset.name: uuid4() for preset in manifest.presets}
    await tx.execute(
        insert(Preset).values(
            [
                {
                    "id": ids[preset.name],
                    "organization_id": version.organization_id,
                    "template_id": version.template_id,
                    "version_id": version.id,
                    "name": preset.name,
                    "description": preset.description,
                    "is_default": preset.default,
                    **_pool_columns(preset),
                }
                for preset in manifest.presets
            ]
        )
    )
    parameters = [
        {"preset_id": ids[preset.name], "name": name, "value": value}
        for preset in manifest.presets
        for name, value in preset.parameters.items()
    ]
    if parameters:
        await tx.execute(insert(PresetParameter).values(parameters))
    schedules = [
        {"preset_id": ids[preset.name], "ordinal": ordinal, "cron": each.cron, "instances": each.instances}
        for preset in manifest.presets
        if preset.prebuilds is not None and preset.prebuilds.scheduling is not None
        for ordinal, each in enumerate(preset.prebuilds.scheduling.schedule)
    ]
    if schedules:
        await tx.execute(insert(PresetSchedule).values(schedules))


def _pool_columns(preset: PresetSpec) -> dict[str, object]:
    prebuilds = preset.prebuilds
    if prebuilds is None:
        return {"desired_instances": None, "ttl": None, "timezone": ""}
    ttl = prebuilds.expiration_policy.ttl
    return {
        "desired_instances": prebuilds.instances,
        "ttl": timedelta(seconds=ttl) if ttl else None,
        "timezone": prebuilds.scheduling.timezone if prebuilds.scheduling is not None else "",
    }
