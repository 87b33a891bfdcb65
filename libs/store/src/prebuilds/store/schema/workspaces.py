"""Workspaces, the builds that change them, and the claims that hand them over."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from prebuilds.domain.agents import AgentState
from prebuilds.domain.builds import BuildOutcome, BuildReason, FailureClass, Transition
from prebuilds.domain.claims import ClaimState
from prebuilds.domain.ids import SYSTEM_USER_ID
from prebuilds.store.schema.base import Base, CreatedAt, Json, NewId, spelled


class Workspace(Base):
    """A workspace; while the system user owns it, it is a prebuild and has a row in `prebuilds`."""

    __tablename__ = "workspaces"
    __table_args__ = (
        # Partial, so that changing owner and name at a claim does not conflict with the KEY SHARE locks of
        # foreign keys (design section 5).
        Index("uq_workspaces_name_live", "owner_id", "name", unique=True, postgresql_where=text("NOT deleted")),
        Index("ix_workspaces_organization_live", "organization_id", "id", postgresql_where=text("NOT deleted")),
        CheckConstraint("0 <= handover_generation", name="handover_not_negative"),
        CheckConstraint("handover_generation <= claim_generation", name="handover_follows_claim"),
    )

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    template_id: Mapped[UUID] = mapped_column(ForeignKey("templates.id"))
    claim_generation: Mapped[int] = mapped_column(server_default=text("0"))
    handover_generation: Mapped[int] = mapped_column(server_default=text("0"))
    latest_build_id: Mapped[UUID | None] = mapped_column(ForeignKey("builds.id", use_alter=True))
    created_at: Mapped[CreatedAt]
    claimed_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    ttl: Mapped[timedelta | None]
    deadline: Mapped[datetime | None]
    autostart: Mapped[str] = mapped_column(server_default="")
    dormant_at: Mapped[datetime | None]
    deleting_at: Mapped[datetime | None]
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))
    deleted_at: Mapped[datetime | None]


class Build(Base):
    """One transition of a workspace; owner, name and generation are those at its queueing (behaviour section 7)."""

    __tablename__ = "builds"
    __table_args__ = (
        UniqueConstraint("workspace_id", "number"),
        Index(
            "uq_builds_unfinished",
            "workspace_id",
            unique=True,
            postgresql_where=text("outcome IS NULL"),
        ),
        Index(
            "ix_builds_pool_history",
            "preset_id",
            text("created_at DESC"),
            postgresql_include=["outcome", "failure_class"],
            postgresql_where=text(f"transition = 'start' AND initiator_id = '{SYSTEM_USER_ID}'::uuid"),
        ),
        Index(
            "ix_builds_failed_starts",
            "preset_id",
            postgresql_where=text(
                f"transition = 'start' AND initiator_id = '{SYSTEM_USER_ID}'::uuid AND outcome = 'failed'"
            ),
        ),
        Index(
            "ix_builds_manifest",
            "workspace_id",
            text("number DESC"),
            postgresql_include=["generation"],
            postgresql_where=text("transition = 'start'"),
        ),
    )

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id"))
    number: Mapped[int]
    version_id: Mapped[UUID] = mapped_column(ForeignKey("template_versions.id"))
    preset_id: Mapped[UUID | None] = mapped_column(ForeignKey("presets.id"))
    transition: Mapped[Transition] = mapped_column(spelled(Transition))
    reason: Mapped[BuildReason] = mapped_column(spelled(BuildReason))
    generation: Mapped[int]
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    owner_name: Mapped[str]
    workspace_name: Mapped[str]
    initiator_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    parameters: Mapped[Json]
    """Every parameter of the version with its value as text, the preset's and the owner's choices applied."""
    outcome: Mapped[BuildOutcome | None] = mapped_column(spelled(BuildOutcome))
    """Null while it is unfinished; then its job says how far it is."""
    failure_class: Mapped[FailureClass | None] = mapped_column(spelled(FailureClass))
    error: Mapped[str] = mapped_column(server_default="")
    provisioner_state: Mapped[bytes | None] = mapped_column(LargeBinary)
    host: Mapped[str | None]
    """The host that built it, for backends whose later jobs must run there (behaviour section 7)."""
    daily_cost: Mapped[int] = mapped_column(server_default=text("0"))
    report: Mapped[Json] = mapped_column(server_default=text("'{}'"))
    """What the daemon told for people: resources, replacements, timings."""
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]


class Claim(Base):
    """One handing of a prebuild to a person, from the request to the agent's acknowledgement."""

    __tablename__ = "claims"
    __table_args__ = (
        UniqueConstraint("workspace_id", "generation"),
        Index("ix_claims_organization", "organization_id", text("committed_at DESC")),
        Index(
            "ix_claims_open",
            "workspace_id",
            unique=True,
            postgresql_where=text("state IN ('building', 'handing_over')"),
        ),
    )

    id: Mapped[NewId]
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey("workspaces.id"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    preset_id: Mapped[UUID] = mapped_column(ForeignKey("presets.id"))
    build_id: Mapped[UUID] = mapped_column(ForeignKey("builds.id"))
    generation: Mapped[int]
    state: Mapped[ClaimState] = mapped_column(spelled(ClaimState))
    outcome: Mapped[AgentState | None] = mapped_column(spelled(AgentState))
    """The worst end of a startup among the agents that acknowledged."""
    reason: Mapped[str] = mapped_column(server_default="")
    """Why the claim failed or what superseded it."""
    requested_at: Mapped[datetime]
    committed_at: Mapped[CreatedAt]
    handed_over_at: Mapped[datetime | None]
    acknowledged_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
