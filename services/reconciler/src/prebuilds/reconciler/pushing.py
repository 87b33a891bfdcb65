"""Pushing a version: check all of it, then store it with its presets in one transaction (behaviour section 1)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from psycopg.errors import UniqueViolation
from sqlalchemy import func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, TemplateId, VersionId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import actor_of, organization_for
from prebuilds.reconciler.archives import CheckedArchive, check_archive
from prebuilds.reconciler.promoting import make_active
from prebuilds.reconciler.queries.templates import (
    PresetView,
    TemplateRow,
    VersionRow,
    find_presets,
    find_templates,
    find_versions,
)
from prebuilds.reconciler.rules.manifest import MAX_PRESETS, Manifest, PresetSpec
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.faults import constraint_of
from prebuilds.store.requests import RequestKey, admit, fingerprint, first_answer, set_answer
from prebuilds.store.schema import (
    Preset,
    PresetParameter,
    PresetSchedule,
    Template,
    TemplateParameter,
    TemplateVersion,
)
from prebuilds.store.transactions import Transaction

METHOD: Final = "TemplateService.PushTemplateVersion"
_VERSION_NAME_TAKEN: Final = "uq_template_versions_template_id_name"


@dataclass(frozen=True, slots=True)
class PushOrder:
    """What is pushed, and what is to become of it."""

    organization: str
    template: str
    """Empty: the name in the manifest."""
    archive: bytes
    version_name: str
    """Empty: made of the version's number."""
    activate: bool
    validate_only: bool
    request_id: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is stored now, or would be."""

    template: TemplateRow
    version: VersionRow
    presets: tuple[PresetView, ...]
    """In the manifest's order."""
    template_created: bool


class _OnlyChecked(Exception):  # noqa: N818 - ends a transaction that must not commit
    def __init__(self, pushed: Pushed) -> None:
        self.pushed = pushed


async def push(database: Database, caller: Caller, order: PushOrder) -> Pushed:
    """Check an archive and store it as a new version; the first one becomes active.

    Raises Refusal INVALID_MANIFEST, INVALID_ARCHIVE, ARCHIVE_TOO_LARGE, NAME_TAKEN, REQUEST_ID_REUSED; nothing is
    stored then, and nothing with `validate_only`.
    """
    async with database.read("find organisation") as tx:
        organization = await organization_for(tx, caller, order.organization, Resource.TEMPLATE, Action.UPDATE)
    checked = await asyncio.to_thread(check_archive, order.archive)
    try:
        return await database.run("push", lambda tx: _store(tx, caller, organization.id, order, checked))
    except _OnlyChecked as end:
        return end.pushed


async def _store(
    tx: Transaction, caller: Caller, organization_id: OrganizationId, order: PushOrder, checked: CheckedArchive
) -> Pushed:
    """Locks the request, then the template."""
    request = RequestKey(organization_id, caller.key, METHOD, "" if order.validate_only else order.request_id)
    content = fingerprint(
        {
            "template": order.template,
            "archive": checked.sha256,
            "version_name": order.version_name,
            "activate": order.activate,
        }
    )
    version_id, manifest = VersionId(uuid4()), checked.manifest
    if not await admit(tx, request, content, {}):
        first = await first_answer(tx, request, content)
        if first is None:
            raise Refusal(Reason.TRANSACTION_CONFLICT, "the first answer to this request has just expired; ask again")
        return await _read(tx, VersionId(UUID(first["version_id"])), manifest, created=first["template_created"])
    template = await _lock_template(tx, organization_id, order.template or manifest.name, manifest)
    await set_answer(tx, request, {"version_id": str(version_id), "template_created": template.is_new})
    await _insert_version(tx, caller, template, version_id, order=order, checked=checked)
    await _insert_presets(tx, organization_id, template.id, version_id, manifest)
    version = (await find_versions(tx, id_=version_id))[0]
    details = {"version": version.name, "archive_sha256": checked.sha256}
    await record_deed(
        tx,
        AuditEntry(
            actor_of(caller), "template.push", "template", template.id, version.template_name, organization_id, details
        ),
    )
    if order.activate or not template.has_active_version:
        await make_active(tx, version, manifest)
    pushed = await _read(tx, version_id, manifest, created=template.is_new)
    if order.validate_only:
        raise _OnlyChecked(pushed)
    return pushed


async def _read(tx: Transaction, version_id: VersionId, manifest: Manifest, *, created: bool) -> Pushed:
    version = (await find_versions(tx, id_=version_id))[0]
    template = (await find_templates(tx, id_=version.template_id, with_deleted=True))[0]
    presets = {preset.name: preset for preset in await find_presets(tx, version_id=version_id, limit=MAX_PRESETS)}
    return Pushed(template, version, tuple(presets[preset.name] for preset in manifest.presets), created)


@dataclass(frozen=True, slots=True)
class _LockedTemplate:
    id: TemplateId
    organization_id: OrganizationId
    is_new: bool
    has_active_version: bool


async def _lock_template(
    tx: Transaction, organization_id: OrganizationId, name: str, manifest: Manifest
) -> _LockedTemplate:
    """Make the template where it is missing, else lock it; two first pushes at once make one template."""
    made = (
        upsert(Template)
        .values(organization_id=organization_id, name=name, description=manifest.description)
        .on_conflict_do_nothing(index_elements=[Template.organization_id, Template.name], index_where=~Template.deleted)
        .returning(Template.id)
    )
    new_id = await tx.scalar(made)
    if new_id is not None:
        return _LockedTemplate(TemplateId(new_id), organization_id, is_new=True, has_active_version=False)
    # A later statement: whoever made it meanwhile was invisible to the one above.
    there = (
        select(Template.id, Template.active_version_id)
        .where(Template.organization_id == organization_id, Template.name == name, Template.deleted.is_(False))
        .with_for_update(key_share=True)
    )
    row = (await tx.execute(there)).one_or_none()
    if row is None:
        raise Refusal(Reason.TRANSACTION_CONFLICT, f"template {name!r} was deleted at this moment; push again")
    return _LockedTemplate(TemplateId(row[0]), organization_id, is_new=False, has_active_version=row[1] is not None)


async def _insert_version(
    tx: Transaction,
    caller: Caller,
    template: _LockedTemplate,
    version_id: VersionId,
    *,
    order: PushOrder,
    checked: CheckedArchive,
) -> None:
    manifest, template_id = checked.manifest, template.id
    highest = await tx.scalar(
        select(func.coalesce(func.max(TemplateVersion.number), 0)).where(TemplateVersion.template_id == template_id)
    )
    number = (highest or 0) + 1
    try:
        await tx.execute(
            insert(TemplateVersion).values(
                id=version_id,
                organization_id=template.organization_id,
                template_id=template_id,
                number=number,
                name=order.version_name or await _free_name(tx, template_id, number),
                backend=manifest.backend,
                agents=manifest.agents,
                manifest=manifest.model_dump(mode="json"),
                source_archive=checked.content,
                created_by=caller.person().user_id,
            )
        )
    except UniqueViolation as violation:
        if constraint_of(violation) != _VERSION_NAME_TAKEN:
            raise
        raise Refusal(Reason.NAME_TAKEN, f"the template has a version named {order.version_name!r}") from violation
    parameters = [
        {
            "version_id": version_id,
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


async def _free_name(tx: Transaction, template_id: TemplateId, number: int) -> str:
    """Name a version by its number, or where somebody gave that name to another, with something behind it."""
    name = f"v{number}"
    taken = await find_versions(tx, template_id=template_id, name=name)
    return f"{name}-{uuid4().hex[:6]}" if taken else name


async def _insert_presets(
    tx: Transaction,
    organization_id: OrganizationId,
    template_id: TemplateId,
    version_id: VersionId,
    manifest: Manifest,
) -> None:
    if not manifest.presets:
        return
    ids = {preset.name: uuid4() for preset in manifest.presets}
    await tx.execute(
        insert(Preset).values(
            [
                {
                    "id": ids[preset.name],
                    "organization_id": organization_id,
                    "template_id": template_id,
                    "version_id": version_id,
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
