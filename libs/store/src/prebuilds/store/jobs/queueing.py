"""Queueing builds: the one way in which any service asks for work on a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from prebuilds.domain.builds import PERSON_PRIORITY, SYSTEM_PRIORITY, BuildReason, Transition
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import (
    SYSTEM_USER_ID,
    BuildId,
    JobId,
    OrganizationId,
    PresetId,
    UserId,
    VersionId,
    WorkspaceId,
)
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.handover.moves import supersede
from prebuilds.store.jobs.news import build_changed
from prebuilds.store.outbox.writer import Event, append_many
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.jobs")
_UNFINISHED = "uq_builds_unfinished"


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """A build that somebody wants; what is None is taken from the workspace's latest build."""

    workspace_id: WorkspaceId
    transition: Transition
    reason: BuildReason
    initiator_id: UserId
    version_id: VersionId | None = None
    preset_id: PresetId | None = None
    parameters: Mapping[str, str] | None = None
    daily_cost: int | None = None

    @property
    def priority(self) -> int:
        """A person's build is served before any of the system's (invariant 9)."""
        return SYSTEM_PRIORITY if self.initiator_id == SYSTEM_USER_ID else PERSON_PRIORITY


@dataclass(frozen=True, slots=True)
class QueuedBuild:
    """A build that waits for a daemon."""

    build_id: BuildId
    job_id: JobId
    workspace_id: WorkspaceId
    organization_id: OrganizationId
    number: int
    preset_id: PresetId | None
    owner_id: UserId


async def queue_builds(tx: Transaction, orders: Sequence[BuildOrder]) -> Sequence[QueuedBuild]:
    """Queue a build for each order; the caller has locked the pool rows and workspaces, or has just made them.

    Starts and deletes end the epoch of the agents' tokens (design section 8); every build here lets agents that
    connect from now on begin with the current manifest and supersedes claims being handed over (behaviour section 7).
    Locks builds, jobs, agents, claims, outbox. Raises Refusal BUILD_UNFINISHED when a workspace has one already.
    """
    if not orders:
        return ()
    try:
        parameters = {"orders": Jsonb(_as_json(orders)), "traceparent": tx.database.trace_context()}
        queued = await tx.fetch_all(_queries["queue_builds"], parameters, row=QueuedBuild)
    except UniqueViolation as violation:
        if violation.diag.constraint_name != _UNFINISHED:
            raise
        raise Refusal(Reason.BUILD_UNFINISHED, "the workspace has an unfinished build") from violation
    if starts := [order.workspace_id for order in orders if order.transition is Transition.START]:
        await tx.run(_queries["lock_agents"], {"workspace_ids": starts})
        await tx.run(_queries["renew_agents"], {"workspace_ids": starts})
    if deletes := [order.workspace_id for order in orders if order.transition is Transition.DELETE]:
        await tx.run(_queries["revoke_agents"], {"workspace_ids": deletes})
    repeated = [build.workspace_id for build in queued if build.number > 1]
    # What the system user owns was never claimed, so there is no handover of it.
    if owned := [build.workspace_id for build in queued if build.number > 1 and build.owner_id != SYSTEM_USER_ID]:
        await supersede(tx, owned, reason="another build was queued before the agent acknowledged")
    revoked = {*starts, *deletes} & set(repeated)
    await append_many(tx, [event for build in queued for event in _news(build, revoked=build.workspace_id in revoked)])
    return queued


def _as_json(orders: Sequence[BuildOrder]) -> list[dict[str, object]]:
    return [
        {
            "build_id": str(uuid4()),
            "job_id": str(uuid4()),
            "workspace_id": str(order.workspace_id),
            "transition": order.transition.value,
            "reason": order.reason.value,
            "initiator_id": str(order.initiator_id),
            "priority": order.priority,
            "version_id": order.version_id and str(order.version_id),
            "preset_id": order.preset_id and str(order.preset_id),
            "parameters": order.parameters,
            "daily_cost": order.daily_cost,
        }
        for order in orders
    ]


def _news(build: QueuedBuild, *, revoked: bool) -> list[Event]:
    payload = {"workspace_id": str(build.workspace_id), "build_id": str(build.build_id)}
    news = [Event(EventKind.JOB_QUEUED, build.job_id, build.organization_id, payload)]
    if build.number > 1 or build.owner_id != SYSTEM_USER_ID:
        # A prebuild's first build is no news: nobody watches it yet, and who fills the pool need not look again.
        news.append(
            build_changed(
                build.workspace_id,
                build.organization_id,
                build_id=build.build_id,
                preset_id=build.preset_id,
                owner_id=build.owner_id,
            )
        )
    if revoked:
        news.append(Event(EventKind.AGENT_REVOKED, build.workspace_id, build.organization_id, payload))
    return news
