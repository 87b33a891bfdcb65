"""The pools: one narrow row per unclaimed prebuild, the line of those who wait, and the history of it all."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Uuid

from prebuilds.domain.builds import FailureClass
from prebuilds.domain.pools import PoolEventKind, PrebuildState
from prebuilds.store.schema.base import Base, CreatedAt, spelled


class Prebuild(Base):
    """A prebuild while nobody has claimed it: all that claim, snapshot and metrics read of it."""

    __tablename__ = "prebuilds"
    __table_args__ = (
        Index(
            "ix_prebuilds_claimable",
            "preset_id",
            "expires_at",
            "ready_at",
            postgresql_where=text(
                "state = 'running' AND ready_at IS NOT NULL AND delete_marked_at IS NULL AND gateways IS NOT NULL"
            ),
        ),
        Index("ix_prebuilds_preset", "preset_id"),
        Index("ix_prebuilds_ended", "preset_id", postgresql_where=text("state IN ('failed', 'canceled')")),
        Index(
            "ix_prebuilds_marked",
            "preset_id",
            postgresql_where=text("delete_marked_at IS NOT NULL AND state IN ('running', 'stopped')"),
        ),
        {
            # Rows change several times in their short life; room on the page keeps those updates off the indexes.
            "postgresql_with": {"fillfactor": 70},
        },
    )

    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    organization_id: Mapped[UUID]
    template_id: Mapped[UUID]
    version_id: Mapped[UUID]
    preset_id: Mapped[UUID]
    state: Mapped[PrebuildState] = mapped_column(spelled(PrebuildState))
    created_at: Mapped[CreatedAt]
    ready_at: Mapped[datetime | None]
    """Since when the first build has succeeded and every agent is ready; null while that is not so."""
    expires_at: Mapped[datetime | None]
    delete_marked_at: Mapped[datetime | None]
    daily_cost: Mapped[int] = mapped_column(server_default=text("0"))
    gateways: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid()))
    """The gateways that hold its agents' streams; null while an agent is missing."""
    disconnected_at: Mapped[datetime | None]
    """Since when an agent is missing; null while all are attached."""
    failure_class: Mapped[FailureClass | None] = mapped_column(spelled(FailureClass))


class Waiting(Base):
    """One place in the line of a preset; kept by the lease of the process that serves the caller."""

    __tablename__ = "waiting"
    __table_args__ = (Index("ix_waiting_line", "preset_id", "place"),)

    place: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    preset_id: Mapped[UUID] = mapped_column(ForeignKey("presets.id"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    request_id: Mapped[str]
    joined_at: Mapped[CreatedAt]
    lease_expires_at: Mapped[datetime]


class PoolEvent(Base):
    """What happened to pools, under template and preset *name*, so that history outlives a push."""

    __tablename__ = "pool_events"
    __table_args__ = (
        Index("ix_pool_events_preset", "template_id", "preset_name", "kind", "created_at"),
        Index("ix_pool_events_uncounted", "id", postgresql_where=text("NOT is_counted")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    template_id: Mapped[UUID] = mapped_column(ForeignKey("templates.id"))
    preset_name: Mapped[str]
    """Empty where a creation matched no preset."""
    kind: Mapped[PoolEventKind] = mapped_column(spelled(PoolEventKind))
    reason: Mapped[str] = mapped_column(server_default="")
    failure_class: Mapped[FailureClass | None] = mapped_column(spelled(FailureClass))
    workspace_id: Mapped[UUID | None]
    user_id: Mapped[UUID | None]
    is_counted: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether it is in `pool_event_totals`; the only part of an event that ever changes."""
    created_at: Mapped[CreatedAt]


class PoolEventTotal(Base):
    """How many events of a kind there were, so that metrics need not count all of history; see `is_counted`."""

    __tablename__ = "pool_event_totals"

    template_id: Mapped[UUID] = mapped_column(ForeignKey("templates.id"), primary_key=True)
    preset_name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[PoolEventKind] = mapped_column(spelled(PoolEventKind), primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    """Reason of a miss, class of a failure; empty for other kinds."""
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    total: Mapped[int] = mapped_column(BigInteger)
