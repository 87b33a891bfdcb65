"""Templates, versions and presets as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from prebuilds.domain.builds import BackendKind
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId, UserId, VersionId
from prebuilds.domain.pools import PresetStatus
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


@dataclass(frozen=True, slots=True)
class TemplateRow:
    """A template."""

    id: TemplateId
    organization_id: OrganizationId
    name: str
    display_name: str
    description: str
    active_version_id: VersionId | None
    active_version_name: str
    deprecated: str
    deleted: bool
    default_ttl: timedelta | None
    autostart: str
    time_til_dormant: timedelta | None
    time_til_dormant_autodelete: timedelta | None
    claim_strategy: ClaimStrategy
    max_starting: int | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version, without its archive."""

    id: VersionId
    organization_id: OrganizationId
    template_id: TemplateId
    template_name: str
    number: int
    name: str
    backend: BackendKind
    agents: tuple[str, ...]
    manifest: Mapping[str, Any]
    archive_size: int
    archive_sha256: str
    created_by: UserId
    creator_name: str
    created_at: datetime
    is_active: bool


@dataclass(frozen=True, slots=True)
class PresetView:
    """A preset, with its parameters and schedules."""

    id: PresetId
    organization_id: OrganizationId
    template_id: TemplateId
    template_name: str
    version_id: VersionId
    version_name: str
    name: str
    description: str
    is_default: bool
    desired_instances: int | None
    ttl: timedelta | None
    timezone: str
    is_active: bool
    status: PresetStatus
    status_message: str
    last_invalidated_at: datetime | None
    retry_requested_at: datetime | None
    created_at: datetime
    parameters: Mapping[str, str]
    crons: tuple[str, ...]
    schedule_instances: tuple[int, ...]


async def find_templates(
    tx: Transaction,
    *,
    id_: UUID | None = None,
    organization_id: OrganizationId | None = None,
    named: str | None = None,
    with_deleted: bool = False,
    name: str | None = None,
    is_deprecated: bool | None = None,
    after: tuple[str, UUID] | None = None,
    limit: int = 1,
) -> Sequence[TemplateRow]:
    """Find templates by name; `named` is a name or an id, `after` the last name and id of the page before."""
    parameters = {
        "id": id_,
        "organization_id": organization_id,
        "named": named,
        "with_deleted": with_deleted,
        "name": name,
        "is_deprecated": is_deprecated,
        "after": after[0] if after else None,
        "after_id": after[1] if after else None,
        "limit": limit,
    }
    return await tx.fetch_all(_queries["find_templates"], parameters, row=TemplateRow)


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
