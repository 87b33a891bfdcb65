"""Values as they are stored: what the reconciler's statements return and its servicers show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from prebuilds.domain.builds import BackendKind
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.ids import (
    SYSTEM_USER_NAME,
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

SYSTEM_GROUP: Final = SYSTEM_USER_NAME
"""The group of the system user: its allowance bounds what prebuilds may cost (behaviour section 9)."""


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
class GroupRow:
    """A group."""

    id: GroupId
    organization_id: OrganizationId
    name: str
    quota_allowance: int | None
    """What each person in it may use a day; None: unlimited."""
    created_at: datetime
    member_count: int
    """People; the system user is none."""

    @property
    def is_system(self) -> bool:
        """Whether it is the system's own."""
        return self.name == SYSTEM_GROUP


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user."""

    id: UserId
    name: str
    issuer: str
    subject: str
    is_system: bool
    created_at: datetime
    last_seen_at: datetime | None
    deleted_at: datetime | None


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
class AuditRow:
    """What somebody did."""

    id: int
    organization_id: OrganizationId | None
    created_at: datetime
    principal: str
    """Kind and id, with a colon between."""
    principal_name: str
    action: str
    resource: str
    resource_id: UUID
    resource_name: str
    details: Mapping[str, Any]


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


class PauseScope(StrEnum):
    """How far a pause reaches."""

    DEPLOYMENT = "deployment"
    TEMPLATE = "template"
    PRESET = "preset"


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause, and who made it."""

    scope: PauseScope
    target_id: UUID | None
    """The template or preset; None for the deployment."""
    message: str
    creator_id: UserId | None
    creator_name: str
    created_at: datetime
