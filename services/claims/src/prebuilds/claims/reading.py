"""Reading workspaces, builds and claims for people: what they may not see does not exist."""

from __future__ import annotations

from dataclasses import replace

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.paging import Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.claims.access import listed_organization, visible_workspace
from prebuilds.claims.queries.filters import BuildFilter, ClaimFilter, WorkspaceFilter
from prebuilds.claims.queries.naming import Named
from prebuilds.claims.queries.views import BuildView, ClaimView, WorkspaceView
from prebuilds.claims.queries.workspaces import (
    list_builds,
    list_claims,
    list_workspaces,
    read_workspaces,
)
from prebuilds.claims.rules.positions import Position
from prebuilds.domain.ids import ClaimId, WorkspaceId
from prebuilds.domain.refusals import Refusal
from prebuilds.store.database import Database


class Reading:
    """What people ask for."""

    def __init__(self, database: Database) -> None:
        """Read from this database."""
        self._database = database

    async def workspace(self, caller: Caller, workspace_id: WorkspaceId) -> WorkspaceView:
        """Give one workspace, deleted ones too; raises Refusal NOT_FOUND."""
        async with self._database.read("get workspace") as tx:
            await visible_workspace(tx, caller, workspace_id)
            (workspace,) = await read_workspaces(tx, [workspace_id])
        return workspace

    async def workspaces(
        self, caller: Caller, organization: Named, wanted: WorkspaceFilter, page: PageWish[Position]
    ) -> Page[WorkspaceView]:
        """Give a page of workspaces, newest first; raises Refusal NOT_FOUND, PAGE_TOKEN_INVALID."""
        after = page.after()
        async with self._database.read("list workspaces") as tx:
            organization_id, only_owner_id = await listed_organization(tx, caller, organization, Resource.WORKSPACE)
            scoped = replace(wanted, organization_id=organization_id, only_owner_id=only_owner_id)
            found = await list_workspaces(tx, scoped, after=after, limit=page.limit)
        return page.cut(found, lambda workspace: Position(workspace.created_at, workspace.id))

    async def builds(
        self, caller: Caller, organization: Named, wanted: BuildFilter, page: PageWish[Position]
    ) -> Page[BuildView]:
        """Give a page of a workspace's builds, newest first; raises Refusal NOT_FOUND, PAGE_TOKEN_INVALID."""
        after = page.after()
        async with self._database.read("list builds") as tx:
            organization_id, _ = await listed_organization(tx, caller, organization, Resource.WORKSPACE)
            whose = await visible_workspace(tx, caller, wanted.workspace_id)
            if whose.organization_id != organization_id:
                raise Refusal.not_found("workspace", str(wanted.workspace_id))
            found = await list_builds(tx, wanted, after=after, limit=page.limit)
        return page.cut(found, lambda build: Position(build.created_at, build.id))

    async def claim(self, caller: Caller, claim_id: ClaimId) -> ClaimView:
        """Give one claim; raises Refusal NOT_FOUND."""
        scope = caller.organizations_for(Resource.CLAIM, Action.READ)
        async with self._database.read("get claim") as tx:
            found = await list_claims(tx, ClaimFilter(claim_id=claim_id))
        for claim in found:
            if scope.covers(claim.organization_id, claim.owner_id):
                return claim
        raise Refusal.not_found("claim", str(claim_id))

    async def claims(
        self, caller: Caller, organization: Named, wanted: ClaimFilter, page: PageWish[Position]
    ) -> Page[ClaimView]:
        """Give a page of claims, newest first; raises Refusal NOT_FOUND, PAGE_TOKEN_INVALID."""
        after = page.after()
        async with self._database.read("list claims") as tx:
            organization_id, only_owner_id = await listed_organization(tx, caller, organization, Resource.CLAIM)
            scoped = replace(wanted, organization_id=organization_id, only_owner_id=only_owner_id)
            found = await list_claims(tx, scoped, after=after, limit=page.limit)
        return page.cut(found, lambda claim: Position(claim.committed_at, claim.id))
