"""Who: organisations, users, roles, groups with their allowances, and the keys of provisioner daemons."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from prebuilds.store.schema.base import Base, CreatedAt, Json, NewId


class Organization(Base):
    """The wall between tenants: every query names one, and what lies behind another's does not exist."""

    __tablename__ = "organizations"
    __table_args__ = (Index("uq_organizations_name_live", "name", unique=True, postgresql_where=text("NOT deleted")),)

    id: Mapped[NewId]
    name: Mapped[str]
    display_name: Mapped[str] = mapped_column(server_default="")
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[CreatedAt]


class User(Base):
    """A person as issuer and subject, or the system user that owns prebuilds."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[NewId]
    issuer: Mapped[str]
    subject: Mapped[str]
    name: Mapped[str]
    is_system: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[CreatedAt]
    last_seen_at: Mapped[datetime | None] = mapped_column(server_default=text("now()"))
    """Null for who was made known before the first call."""
    deleted_at: Mapped[datetime | None]
    """Since when the user cannot sign in any more."""


class OrganizationMember(Base):
    """A user's roles in one organisation; no roles is how the system user takes part."""

    __tablename__ = "organization_members"

    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)
    roles: Mapped[list[str]]
    created_at: Mapped[CreatedAt]


class Group(Base):
    """People who share an allowance; null is unlimited."""

    __tablename__ = "groups"
    __table_args__ = (
        UniqueConstraint("organization_id", "name"),
        CheckConstraint("quota_allowance >= 0", name="allowance_not_negative"),
    )

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    quota_allowance: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[CreatedAt]


class GroupMember(Base):
    """Membership of a group."""

    __tablename__ = "group_members"

    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)


class ProvisionerKey(Base):
    """What a provisioner daemon proves itself with; the key, not the daemon, carries the tags (design section 8)."""

    __tablename__ = "provisioner_keys"
    __table_args__ = (
        UniqueConstraint("organization_id", "name", postgresql_nulls_not_distinct=True),
        CheckConstraint("octet_length(secret_sha256) = 32", name="secret_is_a_digest"),
    )

    id: Mapped[NewId]
    organization_id: Mapped[UUID | None] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    tags: Mapped[Json] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[CreatedAt]
    revoked_at: Mapped[datetime | None]


class QuotaUsage(Base):
    """What a person's workspaces cost a day in one organisation (behaviour section 9)."""

    __tablename__ = "quota_usage"
    __table_args__ = (CheckConstraint("used >= 0", name="used_not_negative"),)

    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    used: Mapped[int] = mapped_column(BigInteger)
