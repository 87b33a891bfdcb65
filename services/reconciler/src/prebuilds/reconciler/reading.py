"""Reading templates for people: what they may not see does not exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.paging import MAX_PAGE_SIZE, Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import (
    check_access,
    organization_for,
    template_for,
    template_named,
    version_for,
)
from prebuilds.reconciler.faults import last_faults
from prebuilds.reconciler.queries.templates import find_templates
from prebuilds.reconciler.queries.versions import find_presets, find_versions
from prebuilds.reconciler.queries.views import PresetView, TemplateRow, VersionRow
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class TemplateFilter:
    """Which templates of an organisation; what is None does not matter."""

    name: str | None = None
    is_deprecated: bool | None = None
    show_deleted: bool = False


@dataclass(frozen=True, slots=True)
class VersionFilter:
    """Which versions of a template; what is None does not matter."""

    name: str | None = None
    is_active: bool | None = None


@dataclass(frozen=True, slots=True)
class PresetFilter:
    """Which presets of a template's version; what is None does not matter."""

    version: str = ""
    """By name or id; empty: the active one."""
    name: str | None = None
    status: PresetStatus | None = None
    has_pool: bool | None = None


class TemplateReading:
    """What people ask for about templates."""

    def __init__(self, database: Database) -> None:
        """Read from this database."""
        self._database = database

    async def template(self, caller: Caller, template_id: UUID) -> TemplateRow:
        """Give one template, deleted ones too; raises Refusal NOT_FOUND."""
        async with self._database.read("get template") as tx:
            return await template_for(tx, caller, template_id, Action.READ)

    async def templates(
        self, caller: Caller, organization: str, wanted: TemplateFilter, page: PageWish[tuple[str, UUID]]
    ) -> Page[TemplateRow]:
        """Give a page of templates, by name; raises Refusal NOT_FOUND, PAGE_TOKEN_INVALID."""
        after = page.after()
        async with self._database.read("list templates") as tx:
            scope = await organization_for(tx, caller, organization, Resource.TEMPLATE, Action.READ)
            found = await find_templates(
                tx,
                organization_id=scope.id,
                with_deleted=wanted.show_deleted,
                name=wanted.name,
                is_deprecated=wanted.is_deprecated,
                after=after,
                limit=page.limit,
            )
        return page.cut(found, lambda template: (template.name, template.id))

    async def version(self, caller: Caller, version_id: UUID) -> tuple[VersionRow, Sequence[PresetView]]:
        """Give one version with its presets; raises Refusal NOT_FOUND."""
        async with self._database.read("get version", snapshot=True) as tx:
            version = await version_for(tx, caller, version_id, Action.READ)
            return version, await _told(tx, await find_presets(tx, version_id=version.id, limit=MAX_PAGE_SIZE))

    async def versions(
        self, caller: Caller, organization: str, template: str, wanted: VersionFilter, page: PageWish[tuple[int]]
    ) -> Page[VersionRow]:
        """Give a page of a template's versions, newest first; raises Refusal NOT_FOUND, PAGE_TOKEN_INVALID."""
        before = page.after()
        async with self._database.read("list versions", snapshot=True) as tx:
            owner = await _template_of(tx, caller, organization, template)
            found = await find_versions(
                tx,
                template_id=owner.id,
                name=wanted.name,
                is_active=wanted.is_active,
                before=before[0] if before else None,
                limit=page.limit,
            )
        return page.cut(found, lambda version: (version.number,))

    async def preset(self, caller: Caller, preset_id: UUID) -> PresetView:
        """Give one preset; raises Refusal NOT_FOUND."""
        async with self._database.read("get preset") as tx:
            found = await find_presets(tx, id_=preset_id)
            if not found:
                raise Refusal.not_found("preset", str(preset_id))
            organization_id = found[0].organization_id
            await check_access(
                tx, caller, organization_id, Resource.TEMPLATE, Action.READ, kind="preset", id_=preset_id
            )
            (preset,) = await _told(tx, found)
        return preset

    async def presets(
        self,
        caller: Caller,
        organization: str,
        template: str,
        wanted: PresetFilter,
        page: PageWish[tuple[bool, str]],
    ) -> Page[PresetView]:
        """Give a page of a version's presets, the default one first.

        Raises Refusal NOT_FOUND, NO_ACTIVE_VERSION, PAGE_TOKEN_INVALID.
        """
        after = page.after()
        async with self._database.read("list presets", snapshot=True) as tx:
            owner = await _template_of(tx, caller, organization, template)
            if not wanted.version and owner.active_version_id is None:
                raise Refusal(Reason.NO_ACTIVE_VERSION, f"template {owner.name!r} has no active version")
            named = wanted.version or str(owner.active_version_id)
            versions = await find_versions(tx, template_id=owner.id, named=named)
            if not versions:
                raise Refusal.not_found("template version", named)
            found = await find_presets(
                tx,
                version_id=versions[0].id,
                name=wanted.name,
                status=wanted.status,
                has_pool=wanted.has_pool,
                after=after,
                limit=page.limit,
            )
            presets = await _told(tx, found)
        return page.cut(presets, lambda preset: (preset.is_default, preset.name))


async def _told(tx: Transaction, presets: Sequence[PresetView]) -> Sequence[PresetView]:
    """Presets with the newest error of those that are hard limited: a retry may have failed since it was put down."""
    limited = [preset.id for preset in presets if preset.status is PresetStatus.HARD_LIMITED]
    faults = await last_faults(tx, limited)
    return [replace(preset, status_message=faults.get(preset.id, preset.status_message)) for preset in presets]


async def _template_of(tx: Transaction, caller: Caller, organization: str, template: str) -> TemplateRow:
    scope = await organization_for(tx, caller, organization, Resource.TEMPLATE, Action.READ)
    return await template_named(tx, scope.id, template)
