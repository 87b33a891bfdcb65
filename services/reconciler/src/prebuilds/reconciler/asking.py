"""Passes and hints that somebody asks for."""

from __future__ import annotations

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import PresetId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import is_operator, organization_for, template_named
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.outcomes import PassStatistics
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.pools import Extent, read_presets
from prebuilds.store.database import Database


class Asking:
    """What people and other services ask the reconciler to do."""

    def __init__(self, database: Database, reconciler: Reconciler, hints: Hints) -> None:
        """Find pools in this database, work through `reconciler`."""
        self._database = database
        self._reconciler = reconciler
        self._hints = hints

    async def reconcile_now(
        self, caller: Caller, organization: str, template: str, preset_ids: frozenset[PresetId]
    ) -> PassStatistics:
        """Run one pass, over all pools within these bounds; what is empty is no bound.

        Refuses NOT_FOUND, and PERMISSION_DENIED for who is no operator and names no organisation.
        """
        return await self._reconciler.run_pass(await self._extent(caller, organization, template, preset_ids))

    def nudge(self, preset_ids: frozenset[PresetId]) -> None:
        """Have a look at these pools soon."""
        self._hints.add(Extent(preset_ids=preset_ids))

    async def _extent(
        self, caller: Caller, organization: str, template: str, preset_ids: frozenset[PresetId]
    ) -> Extent:
        """The pools that are meant, all of them within what the caller may work on."""
        if not organization and not is_operator(caller):
            raise Refusal(Reason.PERMISSION_DENIED, "only operators may reconcile all organisations")
        async with self._database.read("find pools") as tx:
            extent, scope, named = Extent(everything=True), None, None
            if organization:
                scope = (await organization_for(tx, caller, organization, Resource.POOL, Action.UPDATE)).id
                extent = Extent(organization_ids=frozenset({scope}))
            if scope is not None and template:
                named = (await template_named(tx, scope, template)).id
                extent = Extent(template_ids=frozenset({named}))
            if not preset_ids:
                return extent
            meant = {
                preset.preset_id
                for preset in await read_presets(tx, sorted(preset_ids))
                if preset.desired_instances is not None
                and scope in {None, preset.organization_id}
                and named in {None, preset.template_id}
            }
        unknown = preset_ids - meant
        if unknown:
            raise Refusal.not_found("pool", str(min(unknown)))
        return Extent(preset_ids=preset_ids)
