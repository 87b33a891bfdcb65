"""The queue of builds and what the daemons log."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from prebuilds.domain.builds import BackendKind, JobStatus, LogLevel
from prebuilds.store.schema.base import Base, CreatedAt, Json, NewId, spelled


class Job(Base):
    """The work behind a build; taken by a daemon under a lease (behaviour section 7)."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_queue", "priority", "created_at", "id", postgresql_where=text("status = 'pending'")),
        Index("ix_jobs_leases", "lease_expires_at", postgresql_where=text("status IN ('running', 'canceling')")),
        Index("ix_jobs_organization", "organization_id", text("created_at DESC")),
        CheckConstraint("attempt >= 0", name="attempt_not_negative"),
        CheckConstraint("status NOT IN ('running', 'canceling') OR lease_id IS NOT NULL", name="leased_while_running"),
        CheckConstraint("status <> 'pending' OR lease_id IS NULL", name="no_lease_while_pending"),
    )

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id"))
    build_id: Mapped[UUID] = mapped_column(ForeignKey("builds.id"), unique=True)
    backend: Mapped[BackendKind] = mapped_column(spelled(BackendKind))
    tags: Mapped[Json] = mapped_column(server_default=text("'{}'"))
    """What a daemon's key must carry, all of it."""
    priority: Mapped[int]
    status: Mapped[JobStatus] = mapped_column(spelled(JobStatus), server_default=JobStatus.PENDING.value)
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    lease_id: Mapped[UUID | None]
    """The lease that holds it, or under which a daemon reported its end: a repeated report is known by it."""
    lease_owner: Mapped[str] = mapped_column(server_default="")
    """Who holds or last held the lease: names of key and daemon, for people."""
    lease_expires_at: Mapped[datetime | None]
    """When the lease ends, or ended that was lost last."""
    cancel_requested_at: Mapped[datetime | None]
    error: Mapped[str] = mapped_column(server_default="")
    traceparent: Mapped[str | None]
    """The trace in which it was queued; the daemon's work continues it."""
    created_at: Mapped[CreatedAt]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobLog(Base):
    """One line that a build said."""

    __tablename__ = "job_logs"
    __table_args__ = (
        Index("ix_job_logs_job", "job_id", "id"),
        UniqueConstraint("job_id", "attempt", "sequence"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    sequence: Mapped[int] = mapped_column(BigInteger)
    """Counted by the daemon within the attempt, so that a repeated report stores nothing twice."""
    logged_at: Mapped[datetime]
    level: Mapped[LogLevel] = mapped_column(spelled(LogLevel))
    stage: Mapped[str]
    line: Mapped[str]
