"""PoolService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

import grpc.aio

from prebuilds.chassis.caller import Caller, current_caller
from prebuilds.chassis.clock import SystemClock
from prebuilds.chassis.fields import Fields
from prebuilds.chassis.paging import read_page
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.principals import Person
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import check_access, organization_for, template_named
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.inspecting import Inspector, PoolView, order_of
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.pools import Extent, PresetRow
from prebuilds.reconciler.rpc.pool_messages import pool_message, statistics_message
from prebuilds.reconciler.watching import watch_pools
from prebuilds.store.database import Database
from prebuilds.v1 import pool_service_pb2 as pb
from prebuilds.v1.pool_service_pb2_grpc import PoolServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_FILTERS: Final = ("template", "preset", "version", "active", "status", "blocked")
_MAX_PRESETS: Final = 1000


class PoolServicer(PoolServiceServicer):
    """The pools of prebuilds."""

    def __init__(self, database: Database, inspector: Inspector, reconciler: Reconciler, hints: Hints) -> None:
        """Looks through `inspector`, works through `reconciler`."""
        self._database = database
        self._inspector = inspector
        self._reconciler = reconciler
        self._hints = hints

    async def ListPools(self, request: pb.ListPoolsRequest, context: Context) -> pb.ListPoolsResponse:
        """Answer the pools of an organisation, by template, then name."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        condition = _condition(fields, request.filter)
        page = read_page(fields, request, _by_order)
        fields.done()
        after = page.after()

        scope = await self._organization(current_caller(), organization, Action.READ)
        presets = [
            preset
            for preset in await self._inspector.list_presets(Extent(organization_ids=frozenset({scope})))
            if condition.admits_preset(preset) and (after is None or order_of(preset) > after)
        ]
        if condition.is_blocked is not None:
            presets = [view.preset for view in await self._inspector.look(presets) if condition.admits(view)]
        listed = page.cut(presets, order_of)
        pools = await self._inspector.look(listed.things)

        return pb.ListPoolsResponse(pools=map(pool_message, pools), next_page_token=listed.next_token)

    async def GetPool(self, request: pb.GetPoolRequest, context: Context) -> pb.GetPoolResponse:
        """Answer one pool."""
        fields = Fields()
        preset_id = PresetId(fields.id("id", request.id))
        fields.done()

        preset = await self._inspector.find(preset_id)
        if preset is None:
            raise Refusal.not_found("pool", request.id)
        check_access(current_caller(), preset.organization_id, Resource.POOL, Action.READ, kind="pool", id_=preset_id)
        pools = await self._inspector.look([preset])

        return pb.GetPoolResponse(pool=pool_message(pools[0]))

    async def ReconcileNow(self, request: pb.ReconcileNowRequest, context: Context) -> pb.ReconcileNowResponse:
        """Run one pass and answer what it did."""
        fields = Fields()
        preset_ids = frozenset(
            PresetId(fields.id(f"preset_ids[{index}]", text)) for index, text in enumerate(request.preset_ids)
        )
        if len(preset_ids) > _MAX_PRESETS:
            fields.wrong("preset_ids", f"must be at most {_MAX_PRESETS}")
        if request.template and not request.organization:
            fields.wrong("organization", "is required with a template")
        fields.done()

        extent = await self._extent(current_caller(), request.organization, request.template, preset_ids)
        statistics = await self._reconciler.run_pass(extent)

        return pb.ReconcileNowResponse(statistics=statistics_message(statistics))

    async def WatchPools(self, request: pb.WatchPoolsRequest, context: Context) -> AsyncIterator[pb.WatchPoolsResponse]:
        """Stream pools: first all that match, then those that change."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        condition = _condition(fields, request.filter)
        fields.done()

        scope = await self._organization(current_caller(), organization, Action.READ)
        async for change in watch_pools(self._inspector, scope, condition.admits, clock=SystemClock()):
            yield pb.WatchPoolsResponse(
                pools=map(pool_message, change.pools), removed_ids=map(str, change.removed), synced=change.is_complete
            )

    async def Nudge(self, request: pb.NudgeRequest, context: Context) -> pb.NudgeResponse:
        """Take a hint from another service."""
        fields = Fields()
        if not 1 <= len(request.preset_ids) <= _MAX_PRESETS:
            fields.wrong("preset_ids", f"must be 1 to {_MAX_PRESETS}")
        preset_ids = frozenset(
            PresetId(fields.id(f"preset_ids[{index}]", text)) for index, text in enumerate(request.preset_ids)
        )
        fields.done()

        self._hints.add(Extent(preset_ids=preset_ids))

        return pb.NudgeResponse()

    async def _organization(self, caller: Caller, named: str, action: Action) -> OrganizationId:
        async with self._database.read("find organisation") as tx:
            return (await organization_for(tx, caller, named, Resource.POOL, action)).id

    async def _extent(
        self, caller: Caller, organization: str, template: str, preset_ids: frozenset[PresetId]
    ) -> Extent:
        """The pools that are meant, all of them within what the caller may work on."""
        if not organization:
            if not (isinstance(caller.principal, Person) and caller.principal.is_operator):
                raise Refusal(Reason.PERMISSION_DENIED, "only operators may reconcile all organisations")
            return Extent(preset_ids=preset_ids) if preset_ids else Extent(everything=True)
        async with self._database.read("find pools") as tx:
            scope = await organization_for(tx, caller, organization, Resource.POOL, Action.UPDATE)
            named = await template_named(tx, scope.id, template) if template else None
        pools = await self._inspector.list_presets(Extent(organization_ids=frozenset({scope.id})))
        meant = [preset for preset in pools if named is None or preset.template_id == named.id]
        if not preset_ids:
            return Extent(preset_ids=frozenset(preset.preset_id for preset in meant))
        unknown = preset_ids - {preset.preset_id for preset in meant}
        if unknown:
            raise Refusal.not_found("pool", str(min(unknown)))
        return Extent(preset_ids=preset_ids)


@dataclass(frozen=True, slots=True)
class _Condition:
    """What a filter asks of pools."""

    wanted: Mapping[str, str]
    is_blocked: bool | None

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


def _condition(fields: Fields, text: str) -> _Condition:
    conditions = fields.filter(text, _FILTERS)
    conditions.truth("active")
    conditions.word("status", PresetStatus)
    return _Condition(conditions.wanted, conditions.truth("blocked"))


def _by_order(texts: Sequence[str]) -> tuple[str, str, str]:
    template, version, preset = texts
    return template, version, preset
