"""The beginning of a workspace that is built cold, and of each build that a person asks for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from psycopg.errors import UniqueViolation

from prebuilds.domain.builds import Transition
from prebuilds.domain.ids import OrganizationId, TemplateId, UserId, WorkspaceId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.faults import constraint_of
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.workspaces")
_NAMES: Final = "uq_workspaces_name_live"


@dataclass(frozen=True, slots=True)
class NewWorkspace:
    """A workspace that is to be built cold."""

    organization_id: OrganizationId
    owner_id: UserId
    name: str
    template_id: TemplateId
    ttl: timedelta | None
    """How long it runs before it is stopped; None: for ever."""
    autostart: str


async def create_workspace(tx: Transaction, new: NewWorkspace) -> WorkspaceId:
    """Make a workspace that is built cold; raises Refusal NAME_TAKEN where the owner has one of this name.

    Raises Refusal NOT_FOUND where the organisation is being deleted at this moment, whose end it waits for.
    """
    parameters = {
        "organization_id": new.organization_id,
        "owner_id": new.owner_id,
        "name": new.name,
        "template_id": new.template_id,
        "ttl": new.ttl,
        "autostart": new.autostart,
    }
    try:
        made = await tx.fetch_one(_queries["create"], parameters, row=UUID)
    except UniqueViolation as violation:
        if constraint_of(violation) != _NAMES:
            raise
        raise Refusal(Reason.NAME_TAKEN, f"you have a workspace named {new.name!r}") from violation
    if made is None:
        raise Refusal.not_found("organization", str(new.organization_id))
    return WorkspaceId(made)


async def begin_build(tx: Transaction, workspace_id: WorkspaceId, transition: Transition) -> None:
    """Set what a person's build changes of a locked workspace: when it was last used, and its deadline.

    Nothing of a prebuild: no lifecycle rule touches one (invariant 8).
    """
    await tx.run(_queries["begin_build"], {"workspace_id": workspace_id, "transition": transition})
