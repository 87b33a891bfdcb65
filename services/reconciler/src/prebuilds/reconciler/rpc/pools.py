"""PoolService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias
from uuid import UUID

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.messages import timestamp
from prebuilds.chassis.paging import read_page
from prebuilds.domain.ids import PresetId
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.asking import Asking
from prebuilds.reconciler.inspecting import PoolFilter
from prebuilds.reconciler.invalidating import Invalidating, InvalidationOrder
from prebuilds.reconciler.pausing import PauseTarget, Pausing
from prebuilds.reconciler.queries.filters import PoolConditions
from prebuilds.reconciler.queries.views import PauseScope
from prebuilds.reconciler.retrying import Retrying
from prebuilds.reconciler.rpc.pool_messages import SCOPES, pause_message, pool_message, statistics_message
from prebuilds.reconciler.viewing import Viewing
from prebuilds.v1 import pool_service_pb2 as pb
from prebuilds.v1.pool_service_pb2_grpc import PoolServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_FILTERS: Final = ("template", "preset", "version", "active", "status", "blocked")
_SCOPES: Final = {number: scope for scope, number in SCOPES.items()}
_MAX_PRESETS: Final = 1000
_MAX_INVALIDATED: Final = 500
_MAX_MESSAGE: Final = 200


class PoolServicer(PoolServiceServicer):
    """The pools of prebuilds."""

    def __init__(
        self,
        *,
        viewing: Viewing,
        asking: Asking,
        invalidating: Invalidating,
        retrying: Retrying,
        pausing: Pausing,
    ) -> None:
        """Reads requests for these."""
        self._viewing = viewing
        self._asking = asking
        self._invalidating = invalidating
        self._retrying = retrying
        self._pausing = pausing

    async def ListPools(self, request: pb.ListPoolsRequest, context: Context) -> pb.ListPoolsResponse:
        """Answer the pools of an organisation, by template, then name."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        wanted = _filter(fields, request.filter)
        page = read_page(fields, request, _by_order)
        fields.done()

        listed = await self._viewing.pools(current_caller(), organization, wanted, page)

        return pb.ListPoolsResponse(pools=map(pool_message, listed.things), next_page_token=listed.next_token)

    async def GetPool(self, request: pb.GetPoolRequest, context: Context) -> pb.GetPoolResponse:
        """Answer one pool."""
        preset_id = PresetId(read_id(request.id))

        pool = await self._viewing.pool(current_caller(), preset_id)

        return pb.GetPoolResponse(pool=pool_message(pool))

    async def PlanPool(self, request: pb.PlanPoolRequest, context: Context) -> pb.PlanPoolResponse:
        """Answer what would be done with a pool, now or at another moment."""
        fields = Fields()
        preset_id = PresetId(fields.id("id", request.id))
        at = fields.time("plan_time", request.plan_time) if request.HasField("plan_time") else None
        fields.done()

        pool = await self._viewing.plan(current_caller(), preset_id, at)

        return pb.PlanPoolResponse(pool=pool_message(pool), can_skip=pool.can_skip)

    async def InvalidatePresets(
        self, request: pb.InvalidatePresetsRequest, context: Context
    ) -> pb.InvalidatePresetsResponse:
        """Declare the present prebuilds of presets expired."""
        fields = Fields()
        named = _few(fields, "presets", request.presets, _MAX_INVALIDATED)
        order = InvalidationOrder(
            organization=fields.required("organization", request.organization),
            template=fields.required("template", request.template),
            presets=[fields.required(f"presets[{index}]", text) for index, text in enumerate(named)],
            validate_only=request.validate_only,
        )
        fields.done()

        invalidated = await self._invalidating.invalidate(current_caller(), order)

        return pb.InvalidatePresetsResponse(
            preset_ids=map(str, invalidated.preset_ids),
            prebuild_count=invalidated.prebuilds,
            invalidate_time=timestamp(invalidated.at),
        )

    async def RetryPreset(self, request: pb.RetryPresetRequest, context: Context) -> pb.RetryPresetResponse:
        """Let one prebuild of a hard limited preset be tried."""
        preset_id = PresetId(read_id(request.id))

        pool = await self._retrying.retry(current_caller(), preset_id)

        return pb.RetryPresetResponse(pool=pool_message(pool))

    async def PauseReconciliation(
        self, request: pb.PauseReconciliationRequest, context: Context
    ) -> pb.PauseReconciliationResponse:
        """Keep the reconciler from working on pools."""
        fields = Fields()
        target = _target(fields, request)
        message = fields.at_most("message", request.message, _MAX_MESSAGE)
        fields.done()

        pause = await self._pausing.pause(current_caller(), target, message)

        return pb.PauseReconciliationResponse(pause=pause_message(pause))

    async def ResumeReconciliation(
        self, request: pb.ResumeReconciliationRequest, context: Context
    ) -> pb.ResumeReconciliationResponse:
        """End a pause."""
        fields = Fields()
        target = _target(fields, request)
        fields.done()

        ended = await self._pausing.resume(current_caller(), target)

        return pb.ResumeReconciliationResponse(ended_pause=pause_message(ended))

    async def ReconcileNow(self, request: pb.ReconcileNowRequest, context: Context) -> pb.ReconcileNowResponse:
        """Run one pass and answer what it did."""
        fields = Fields()
        organization = fields.optional("organization", request.organization)
        template = fields.optional("template", request.template)
        fields.check("organization", "is required with a template", is_good=bool(organization or not template))
        preset_ids = _preset_ids(fields, request.preset_ids)
        fields.done()

        statistics = await self._asking.reconcile_now(current_caller(), organization, template, preset_ids)

        return pb.ReconcileNowResponse(statistics=statistics_message(statistics))

    async def WatchPools(self, request: pb.WatchPoolsRequest, context: Context) -> AsyncIterator[pb.WatchPoolsResponse]:
        """Stream pools: first all that match, then those that change."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        wanted = _filter(fields, request.filter)
        fields.done()

        async with aclosing(self._viewing.watch(current_caller(), organization, wanted)) as changes:
            async for change in changes:
                yield pb.WatchPoolsResponse(
                    pools=map(pool_message, change.pools),
                    removed_ids=map(str, change.removed),
                    synced=change.is_complete,
                )

    async def Nudge(self, request: pb.NudgeRequest, context: Context) -> pb.NudgeResponse:
        """Take a hint from another service."""
        fields = Fields()
        fields.check("preset_ids", f"must be 1 to {_MAX_PRESETS}", is_good=len(request.preset_ids) > 0)
        preset_ids = _preset_ids(fields, request.preset_ids)
        fields.done()

        self._asking.nudge(preset_ids)

        return pb.NudgeResponse()


def _few(fields: Fields, field: str, texts: Sequence[str], most: int) -> Sequence[str]:
    """The values of a field that holds several; none of too many, each of which would only add to what is wrong."""
    fields.check(field, f"must be at most {most}", is_good=len(texts) <= most)
    return texts if len(texts) <= most else ()


def _preset_ids(fields: Fields, texts: Sequence[str]) -> frozenset[PresetId]:
    few = _few(fields, "preset_ids", texts, _MAX_PRESETS)
    return frozenset(PresetId(fields.id(f"preset_ids[{index}]", text)) for index, text in enumerate(few))


def _target(fields: Fields, request: pb.PauseReconciliationRequest | pb.ResumeReconciliationRequest) -> PauseTarget:
    scope = _SCOPES.get(request.scope)
    if scope is None:
        fields.wrong("scope", "is required, and must be one that is known")
        return PauseTarget(PauseScope.DEPLOYMENT, None)
    if scope is PauseScope.DEPLOYMENT:
        fields.check("target_id", "must be empty for the deployment", is_good=not request.target_id)
        return PauseTarget(scope, None)
    return PauseTarget(scope, fields.id("target_id", request.target_id))


def _filter(fields: Fields, text: str) -> PoolFilter:
    conditions = fields.filter(text, _FILTERS)
    return PoolFilter(
        PoolConditions(
            template=conditions.text("template"),
            preset=conditions.text("preset"),
            version=conditions.text("version"),
            is_active=conditions.truth("active"),
            status=conditions.word("status", PresetStatus),
        ),
        is_blocked=conditions.truth("blocked"),
    )


def _by_order(texts: Sequence[str]) -> tuple[str, str, UUID]:
    template, preset, id_ = texts
    return template, preset, UUID(id_)
