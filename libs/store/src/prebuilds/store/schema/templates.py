"""What can be built: templates, their versions and parameters, and the presets that ask for pools."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import CheckConstraint, Computed, ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from prebuilds.domain.builds import BackendKind
from prebuilds.domain.claims import ClaimStrategy
from prebuilds.domain.pools import PresetStatus
from prebuilds.store.schema.base import Base, CreatedAt, Json, NewId, spelled


class Template(Base):
    """A template and what applies to all workspaces of it; promotion copies strategy and lifecycle from the version."""

    __tablename__ = "templates"
    __table_args__ = (
        Index("uq_templates_name_live", "organization_id", "name", unique=True, postgresql_where=text("NOT deleted")),
        CheckConstraint("max_starting > 0", name="max_starting_positive"),
    )

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    display_name: Mapped[str] = mapped_column(server_default="")
    description: Mapped[str] = mapped_column(server_default="")
    active_version_id: Mapped[UUID | None] = mapped_column(ForeignKey("template_versions.id", use_alter=True))
    deprecated: Mapped[str] = mapped_column(server_default="")
    """The message for people; empty where the template is not deprecated."""
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))
    default_ttl: Mapped[timedelta | None]
    autostart: Mapped[str] = mapped_column(server_default="")
    time_til_dormant: Mapped[timedelta | None]
    time_til_dormant_autodelete: Mapped[timedelta | None]
    claim_strategy: Mapped[ClaimStrategy] = mapped_column(
        spelled(ClaimStrategy), server_default=ClaimStrategy.PROVISION.value
    )
    max_starting: Mapped[int | None]
    paused_at: Mapped[datetime | None]
    paused_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    pause_message: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))


class TemplateVersion(Base):
    """One pushed archive, unchangeable."""

    __tablename__ = "template_versions"
    __table_args__ = (UniqueConstraint("template_id", "number"), UniqueConstraint("template_id", "name"))

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    template_id: Mapped[UUID] = mapped_column(ForeignKey("templates.id"))
    number: Mapped[int]
    name: Mapped[str]
    backend: Mapped[BackendKind] = mapped_column(spelled(BackendKind))
    agents: Mapped[list[str]]
    manifest: Mapped[Json]
    """The manifest as it was checked, with its defaults filled in (behaviour section 1)."""
    source_archive: Mapped[bytes] = mapped_column(LargeBinary)
    archive_size: Mapped[int] = mapped_column(Computed("octet_length(source_archive)", persisted=True))
    """Bytes; stored, since nobody who looks at versions should have to read their archives."""
    archive_sha256: Mapped[str] = mapped_column(Computed("encode(sha256(source_archive), 'hex')", persisted=True))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[CreatedAt]


class TemplateParameter(Base):
    """A named input of a version."""

    __tablename__ = "template_parameters"

    version_id: Mapped[UUID] = mapped_column(ForeignKey("template_versions.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    ordinal: Mapped[int]
    type: Mapped[str]
    description: Mapped[str] = mapped_column(server_default="")
    default_value: Mapped[str | None]
    """As text; null where a value is required."""
    mutable: Mapped[bool]
    options: Mapped[list[str]]
    """The only values allowed; empty allows all of the type."""


class Preset(Base):
    """Named values of one version's parameters; with `desired_instances` it asks for a pool."""

    __tablename__ = "presets"
    __table_args__ = (
        UniqueConstraint("version_id", "name"),
        Index("ix_presets_pools", "template_id", postgresql_where=text("desired_instances IS NOT NULL")),
        Index("ix_presets_over_quota", "organization_id", postgresql_where=text("over_quota_since IS NOT NULL")),
        Index("uq_presets_default", "version_id", unique=True, postgresql_where=text("is_default")),
        CheckConstraint("desired_instances >= 0", name="instances_not_negative"),
        CheckConstraint("ttl > interval '0'", name="ttl_positive"),
    )

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    template_id: Mapped[UUID] = mapped_column(ForeignKey("templates.id"))
    version_id: Mapped[UUID] = mapped_column(ForeignKey("template_versions.id"))
    name: Mapped[str]
    description: Mapped[str] = mapped_column(server_default="")
    is_default: Mapped[bool]
    desired_instances: Mapped[int | None]
    """Null: no pool; 0: a pool that wants none."""
    ttl: Mapped[timedelta | None]
    """Null: prebuilds never expire."""
    timezone: Mapped[str] = mapped_column(server_default="")
    """IANA zone of the schedules; empty where there are none."""
    status: Mapped[PresetStatus] = mapped_column(spelled(PresetStatus), server_default=PresetStatus.HEALTHY.value)
    status_since: Mapped[datetime] = mapped_column(server_default=text("now()"))
    status_message: Mapped[str] = mapped_column(server_default="")
    last_invalidated_at: Mapped[datetime | None]
    retry_requested_at: Mapped[datetime | None]
    over_quota_since: Mapped[datetime | None]
    """Since when the allowance of the group `prebuilds` keeps the pool from its target; null while it does not."""
    reconciled_at: Mapped[datetime | None]
    """When a pass last read the pool under the preset's lock: what it looked like before that has been seen to."""
    paused_at: Mapped[datetime | None]
    paused_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    pause_message: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[CreatedAt]


class PresetParameter(Base):
    """One value that a preset fixes."""

    __tablename__ = "preset_parameters"

    preset_id: Mapped[UUID] = mapped_column(ForeignKey("presets.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class PresetSchedule(Base):
    """A continuous range in which the pool has another target (behaviour section 2)."""

    __tablename__ = "preset_schedules"
    __table_args__ = (CheckConstraint("instances >= 0", name="instances_not_negative"),)

    preset_id: Mapped[UUID] = mapped_column(ForeignKey("presets.id"), primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    cron: Mapped[str]
    instances: Mapped[int]
