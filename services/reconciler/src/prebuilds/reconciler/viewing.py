"""Looking at pools for people: what they may not see does not exist."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.clock import Clock, SystemClock
from prebuilds.chassis.paging import Page, PageWish
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.domain.refusals import Refusal
from prebuilds.reconciler.access import check_access, organization_for
from prebuilds.reconciler.inspecting import Inspector, PoolView, order_of
from prebuilds.reconciler.queries.pools import Extent, PresetRow
from prebuilds.reconciler.watching import Change, watch_pools
from prebuilds.store.database import Database


@dataclass(frozen=True, slots=True)
class PoolFilter:
    """Which pools of an organisation."""

    wanted: Mapping[str, str]
    """By field: template, preset and version by name or id, `active`, `status`; one that is absent does not matter."""
    is_blocked: bool | None
    """None: does not matter."""

    def admits_preset(self, preset: PresetRow) -> bool:
        """Whether a pool satisfies every condition that its preset alone decides."""
        told: Mapping[str, tuple[str | UUID, ...]] = {
            "template": (preset.template_name, preset.template_id),
            "preset": (preset.preset_name, preset.preset_id),
            "version": (preset.version_name, preset.version_id),
            "active": ("true" if preset.is_active else "false",),
            "status": (preset.status.value,),
        }
        return all(
            self.wanted[field] in {str(value) for value in values}
            for field, values in told.items()
            if field in self.wanted
        )

    def admits(self, view: PoolView) -> bool:
        """Whether a pool satisfies every condition."""
        return self.admits_preset(view.preset) and self.is_blocked in {None, bool(view.blocks)}


class Viewing:
    """What people ask for about pools."""

    def __init__(self, database: Database, inspector: Inspector, *, clock: Clock | None = None) -> None:
        """Look through this inspector."""
        self._database = database
        self._inspector = inspector
        self._clock = clock or SystemClock()

    async def pool(self, caller: Caller, preset_id: PresetId) -> PoolView:
        """Give one pool; raises Refusal NOT_FOUND."""
        preset = await self._inspector.find(preset_id)
        if preset is None:
            raise Refusal.not_found("pool", str(preset_id))
        check_access(caller, preset.organization_id, Resource.POOL, Action.READ, kind="pool", id_=preset_id)
        (pool,) = await self._inspector.look([preset])
        return pool

    async def pools(
        self, caller: Caller, organization: str, wanted: PoolFilter, page: PageWish[tuple[str, str, str]]
    ) -> Page[PoolView]:
        """Give a page of pools, by template, then name; raises Refusal NOT_FOUND, PAGE_TOKEN_INVALID."""
        after = page.after()
        presets = [
            preset
            for preset in await self._presets(await self._organization(caller, organization))
            if wanted.admits_preset(preset) and (after is None or order_of(preset) > after)
        ]
        if wanted.is_blocked is not None:
            presets = [view.preset for view in await self._inspector.look(presets) if wanted.admits(view)]
        listed = page.cut(presets, order_of)
        return Page(await self._inspector.look(listed.things), listed.next_token)

    async def watch(self, caller: Caller, organization: str, wanted: PoolFilter) -> AsyncIterator[Change]:
        """Tell pools: first all that match, then those that change; raises Refusal NOT_FOUND."""
        scope = await self._organization(caller, organization)
        async for change in watch_pools(self._inspector, scope, wanted.admits, clock=self._clock):
            yield change

    async def _organization(self, caller: Caller, named: str) -> OrganizationId:
        async with self._database.read("find organisation") as tx:
            return (await organization_for(tx, caller, named, Resource.POOL, Action.READ)).id

    async def _presets(self, organization_id: OrganizationId) -> list[PresetRow]:
        return await self._inspector.list_presets(Extent(organization_ids=frozenset({organization_id})))
