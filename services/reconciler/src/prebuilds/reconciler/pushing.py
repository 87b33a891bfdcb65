"""Pushing a version: check all of it, then store it with its presets in one transaction (behaviour section 1)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, TemplateId, VersionId
from prebuilds.reconciler.access import actor_of, organization_for
from prebuilds.reconciler.archives import CheckedArchive, check_archive
from prebuilds.reconciler.promoting import make_active
from prebuilds.reconciler.queries.people import keep_organization
from prebuilds.reconciler.queries.templates import find_templates, make_or_lock_template
from prebuilds.reconciler.queries.versions import (
    NewVersion,
    find_presets,
    find_versions,
    insert_version,
    next_number,
)
from prebuilds.reconciler.queries.views import PresetView, TemplateRow, VersionRow
from prebuilds.reconciler.rules.manifest import MAX_PRESETS, Manifest
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.requests import RequestKey, admit_or_answer, fingerprint, set_answer
from prebuilds.store.transactions import Transaction

METHOD: Final = "TemplateService.PushTemplateVersion"


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


class Pushing:
    """Pushes versions."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def push(self, caller: Caller, order: PushOrder) -> Pushed:
        """Check an archive and store it as a new version; the first one becomes active.

        Raises Refusal INVALID_MANIFEST, INVALID_ARCHIVE, ARCHIVE_TOO_LARGE, NAME_TAKEN, REQUEST_ID_REUSED; nothing is
        stored then, and nothing with `validate_only`.
        """
        async with self._database.read("find organisation") as tx:
            organization = await organization_for(tx, caller, order.organization, Resource.TEMPLATE, Action.UPDATE)
        checked = await asyncio.to_thread(check_archive, order.archive)
        try:
            return await self._database.run("push", lambda tx: _store(tx, caller, organization.id, order, checked))
        except _OnlyChecked as end:
            return end.pushed


async def _store(
    tx: Transaction, caller: Caller, organization_id: OrganizationId, order: PushOrder, checked: CheckedArchive
) -> Pushed:
    """Locks the request, the organisation, then the template."""
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
    first = await admit_or_answer(tx, request, content, {})
    await keep_organization(tx, organization_id)
    if first is not None:
        return await _read(tx, VersionId(UUID(first["version_id"])), manifest, created=first["template_created"])
    template = await make_or_lock_template(
        tx, organization_id, order.template or manifest.name, description=manifest.description
    )
    await set_answer(tx, request, {"version_id": str(version_id), "template_created": template.is_new})
    number = await next_number(tx, template.id)
    new = NewVersion(
        id=version_id,
        organization_id=organization_id,
        template_id=template.id,
        number=number,
        name=order.version_name or await _free_name(tx, template.id, number),
        source_archive=checked.content,
        created_by=caller.person().user_id,
    )
    await insert_version(tx, new, manifest)
    version = (await find_versions(tx, id_=version_id))[0]
    details = {"version": version.name, "archive_sha256": checked.sha256}
    await record_deed(
        tx,
        AuditEntry(actor_of(caller), "push", "template", template.id, version.template_name, organization_id, details),
    )
    if order.activate or template.active_version_id is None:
        await make_active(tx, template, version, manifest)
    pushed = await _read(tx, version_id, manifest, created=template.is_new)
    if order.validate_only:
        raise _OnlyChecked(pushed)
    return pushed


async def _read(tx: Transaction, version_id: VersionId, manifest: Manifest, *, created: bool) -> Pushed:
    version = (await find_versions(tx, id_=version_id))[0]
    template = (await find_templates(tx, id_=version.template_id, with_deleted=True))[0]
    presets = {preset.name: preset for preset in await find_presets(tx, version_id=version_id, limit=MAX_PRESETS)}
    return Pushed(template, version, tuple(presets[preset.name] for preset in manifest.presets), created)


async def _free_name(tx: Transaction, template_id: TemplateId, number: int) -> str:
    """Name a version by its number, or where somebody gave that name to another, with something behind it."""
    name = f"v{number}"
    taken = await find_versions(tx, template_id=template_id, name=name)
    return f"{name}-{uuid4().hex[:6]}" if taken else name
