"""Looking at pools for people: what they may not see does not exist."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.paging import MAX_PAGE_SIZE, Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.domain.refusals import Refusal, Violation
from prebuilds.reconciler.access import organization_for, pool_for
from prebuilds.reconciler.inspecting import Inspector, PoolFilter, PoolView
from prebuilds.reconciler.queries.pools import read_moment
from prebuilds.reconciler.watching import Change, Watching
from prebuilds.store.database import Database

FARTHEST_PLAN: Final = timedelta(days=366)
"""How far from now, on either side, a plan may be asked for."""


class Viewing:
    """What people ask for about pools."""

    def __init__(self, database: Database, inspector: Inspector, watching: Watching) -> None:
        """Look through this inspector."""
        self._database = database
        self._inspector = inspector
        self._watching = watching

    async def pool(self, caller: Caller, preset_id: PresetId) -> PoolView:
        """Give one pool; raises Refusal NOT_FOUND."""
        async with self._database.read("get pool", snapshot=True) as tx:
            preset = await pool_for(tx, caller, preset_id, Action.READ)
            (pool,) = await self._inspector.look(tx, [preset])
        return pool

    async def plan(self, caller: Caller, preset_id: PresetId, at: datetime | None) -> PoolView:
        """Plan one pool for a moment, None is now; raises Refusal NOT_FOUND, or INVALID_FIELDS where it is far away."""
        async with self._database.read("plan pool", snapshot=True) as tx:
            if at is not None and abs(at - (await read_moment(tx)).at) > FARTHEST_PLAN:
                far = f"must be at most {FARTHEST_PLAN.days} days away from now"
                raise Refusal.invalid(Violation("plan_time", far))
            preset = await pool_for(tx, caller, preset_id, Action.READ)
            return await self._inspector.plan_at(tx, preset, at)

    async def pools(
        self, caller: Caller, organization: str, wanted: PoolFilter, page: PageWish[tuple[str, str, UUID]]
    ) -> Page[PoolView]:
        """Give a page of pools, by template, then name; raises Refusal NOT_FOUND, PAGE_TOKEN_INVALID.

        Whether a pool is blocked shows only when it is looked at; then those that lie between are passed over.
        """
        after = page.after()
        scope = await self._organization(caller, organization)
        step = page.limit if wanted.is_blocked is None else MAX_PAGE_SIZE
        listed: list[PoolView] = []
        async with aclosing(self._inspector.walk(scope, wanted.conditions, after=after, step=step)) as lots:
            async for views in lots:
                listed += filter(wanted.admits_blocks, views)
                if len(listed) >= page.limit:
                    break
        return page.cut(listed, lambda view: view.order)

    async def watch(self, caller: Caller, organization: str, wanted: PoolFilter) -> AsyncGenerator[Change]:
        """Tell pools: first all that match, then those that change; raises Refusal NOT_FOUND."""
        scope = await self._organization(caller, organization)
        async with aclosing(self._watching.watch(scope, wanted)) as changes:
            async for change in changes:
                yield change

    async def _organization(self, caller: Caller, named: str) -> OrganizationId:
        async with self._database.read("find organisation") as tx:
            return (await organization_for(tx, caller, named, Resource.POOL, Action.READ)).id
