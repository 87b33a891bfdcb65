"""PoolService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeAlias

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, read_id
from prebuilds.chassis.paging import read_page
from prebuilds.domain.ids import PresetId
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.asking import Asking
from prebuilds.reconciler.rpc.pool_messages import pool_message, statistics_message
from prebuilds.reconciler.viewing import PoolFilter, Viewing
from prebuilds.v1 import pool_service_pb2 as pb
from prebuilds.v1.pool_service_pb2_grpc import PoolServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_FILTERS: Final = ("template", "preset", "version", "active", "status", "blocked")
_MAX_PRESETS: Final = 1000


class PoolServicer(PoolServiceServicer):
    """The pools of prebuilds."""

    def __init__(self, viewing: Viewing, asking: Asking) -> None:
        """Reads requests for these."""
        self._viewing = viewing
        self._asking = asking

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

        statistics = await self._asking.reconcile_now(
            current_caller(), request.organization, request.template, preset_ids
        )

        return pb.ReconcileNowResponse(statistics=statistics_message(statistics))

    async def WatchPools(self, request: pb.WatchPoolsRequest, context: Context) -> AsyncIterator[pb.WatchPoolsResponse]:
        """Stream pools: first all that match, then those that change."""
        fields = Fields()
        organization = fields.required("organization", request.organization)
        wanted = _filter(fields, request.filter)
        fields.done()

        async for change in self._viewing.watch(current_caller(), organization, wanted):
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

        self._asking.nudge(preset_ids)

        return pb.NudgeResponse()


def _filter(fields: Fields, text: str) -> PoolFilter:
    conditions = fields.filter(text, _FILTERS)
    conditions.truth("active")
    conditions.word("status", PresetStatus)
    return PoolFilter(conditions.wanted, conditions.truth("blocked"))


def _by_order(texts: Sequence[str]) -> tuple[str, str, str]:
    template, version, preset = texts
    return template, version, preset
