"""Values as they are stored: what the reconciler's statements return and its servicers show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prebuilds.domain.builds import BackendKind
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import (
    GroupId,
    OrganizationId,
    PresetId,
    ProvisionerKeyId,
    TemplateId,
    UserId,
    VersionId,
)
from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.principals import Role


@dataclass(frozen=True, slots=True)
class OrganizationRow:
    """An organisation."""

    id: OrganizationId
    name: str
    display_name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A user's part in an organisation."""

    organization_id: OrganizationId
    user_id: UserId
    user_name: str
    is_system: bool
    roles: tuple[Role, ...]
    created_at: datetime
    quota_used: int
    group_ids: tuple[GroupId, ...]
    quota_allowance: int | None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A provisioner key, without its secret."""

    id: ProvisionerKeyId
    organization_id: OrganizationId | None
    name: str
    tags: Mapping[str, str]
    created_at: datetime
    revoked_at: datetime | None


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
