"""Whose workspace may be seen and changed by whom: what one may not see does not exist (design section 8)."""

from __future__ import annotations

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.claims.queries.naming import Named
from prebuilds.claims.queries.workspaces import Whose, find_organization, whose_workspace
from prebuilds.domain.ids import OrganizationId, UserId, WorkspaceId
from prebuilds.domain.refusals import Refusal
from prebuilds.store.transactions import Transaction


async def visible_workspace(
    tx: Transaction, caller: Caller, workspace_id: WorkspaceId, *, kind: str = "workspace", text: str = ""
) -> Whose:
    """Find a workspace that the caller may see; raises Refusal NOT_FOUND, for what the caller named, else."""
    whose = await whose_workspace(tx, workspace_id)
    scope = caller.organizations_for(Resource.WORKSPACE, Action.READ)
    if whose is None or not scope.covers(whose.organization_id, whose.owner_id):
        raise Refusal.not_found(kind, text or str(workspace_id))
    return whose


def require_change(caller: Caller, whose: Whose, action: Action) -> None:
    """Raise unless the caller may do this to a workspace; the right to *prebuilt* ones counts while it is one."""
    prebuilt = Resource.PREBUILT_WORKSPACE
    if whose.is_prebuild and caller.may(whose.organization_id, prebuilt, action):
        return
    caller.require(whose.organization_id, Resource.WORKSPACE, action, owner_id=whose.owner_id)


async def listed_organization(
    tx: Transaction, caller: Caller, organization: Named, resource: Resource
) -> tuple[OrganizationId, UserId | None]:
    """Find the organisation of a list, and the owner whose things alone the caller may see in it; None: all.

    Raises Refusal NOT_FOUND where it does not exist or is closed to the caller.
    """
    organization_id = await find_organization(tx, organization)
    scope = caller.organizations_for(resource, Action.READ)
    if organization_id is not None:
        if scope.everywhere or organization_id in scope.full:
            return organization_id, None
        if organization_id in scope.own:
            return organization_id, scope.user_id
    raise Refusal.not_found("organization", organization.text)
