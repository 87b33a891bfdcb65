"""What the system keeps about its own work: requests answered, events to publish, audit, notifications, settings."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from prebuilds.domain.events import EventKind
from prebuilds.store.schema.base import Base, CreatedAt, Json, NewId, spelled


class Request(Base):
    """An answered request; the same id with the same content gets the same answer for 24 h (behaviour section 6)."""

    __tablename__ = "requests"
    __table_args__ = (Index("ix_requests_age", "created_at"),)

    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    principal: Mapped[str] = mapped_column(primary_key=True)
    method: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    answer: Mapped[Json]
    created_at: Mapped[CreatedAt]


class Outbox(Base):
    """An event that is to be published; gone when JetStream has it."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_age", "created_at"),)

    id: Mapped[NewId]
    event: Mapped[EventKind] = mapped_column(spelled(EventKind))
    subject_id: Mapped[UUID]
    organization_id: Mapped[UUID | None]
    payload: Mapped[Json]
    traceparent: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    leased_until: Mapped[datetime | None]


class Notification(Base):
    """Something that people of one role in an organisation are told."""

    __tablename__ = "notifications"
    __table_args__ = (Index("ix_notifications_organization", "organization_id", text("created_at DESC")),)

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    role: Mapped[str]
    kind: Mapped[str]
    subject_id: Mapped[UUID]
    title: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[CreatedAt]


class NotificationRead(Base):
    """That a user has read a notification."""

    __tablename__ = "notification_reads"

    notification_id: Mapped[UUID] = mapped_column(ForeignKey("notifications.id"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    read_at: Mapped[CreatedAt]


class AuditEvent(Base):
    """Who changed what."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_organization", "organization_id", text("created_at DESC"), text("id DESC")),
        Index("ix_audit_log_time", text("created_at DESC"), text("id DESC")),
        Index("ix_audit_log_resource", "resource_id", text("created_at DESC"), text("id DESC")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    organization_id: Mapped[UUID | None] = mapped_column(ForeignKey("organizations.id"))
    principal: Mapped[str]
    """Kind and id: `person:<uuid>`, `service:reconciler`, `daemon:<uuid>`."""
    principal_name: Mapped[str]
    action: Mapped[str]
    resource: Mapped[str]
    resource_id: Mapped[UUID]
    resource_name: Mapped[str]
    details: Mapped[Json] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[CreatedAt]


class Setting(Base):
    """A setting of the whole deployment that changes while it runs."""

    __tablename__ = "settings"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[Json]
    updated_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    updated_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
