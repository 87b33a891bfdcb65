"""Agents with their incarnations and connections, and the gateways that hold their streams."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from prebuilds.domain.agents import AgentState
from prebuilds.store.schema.base import Base, CreatedAt, NewId, spelled


class Agent(Base):
    """An agent of a workspace: whose token counts, which incarnation runs and who holds its stream."""

    __tablename__ = "agents"
    __table_args__ = (
        UniqueConstraint("workspace_id", "name"),
        Index("ix_agents_gateway", "gateway_id", postgresql_where=text("gateway_id IS NOT NULL")),
    )

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    token_key_id: Mapped[str | None]
    """The key that signs its token; null until a job of this epoch is first acquired."""
    token_epoch: Mapped[int] = mapped_column(server_default=text("1"))
    retired: Mapped[bool] = mapped_column(server_default=text("false"))
    incarnation: Mapped[int] = mapped_column(server_default=text("0"))
    """Rises with each beginning; 0 before the first."""
    process: Mapped[str] = mapped_column(server_default="")
    entry: Mapped[int] = mapped_column(server_default=text("0"))
    generation: Mapped[int] = mapped_column(server_default=text("0"))
    """The generation whose manifest the incarnation runs."""
    state: Mapped[AgentState] = mapped_column(spelled(AgentState), server_default=AgentState.CREATED.value)
    state_changed_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    error: Mapped[str] = mapped_column(server_default="")
    gateway_id: Mapped[UUID | None]
    connection_id: Mapped[UUID | None]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    """Highest attempt of the incarnation's streams that was attached."""
    connected_at: Mapped[datetime | None]
    disconnected_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class Gateway(Base):
    """A gateway process; one unseen for 60 s is gone, and its agents with it (behaviour section 8)."""

    __tablename__ = "gateways"

    id: Mapped[NewId]
    address: Mapped[str]
    started_at: Mapped[CreatedAt]
    seen_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    live_since: Mapped[datetime] = mapped_column(server_default=text("now()"))
