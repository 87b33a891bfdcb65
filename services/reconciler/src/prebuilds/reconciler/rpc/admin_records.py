"""AdminService: the records of what was done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields
from prebuilds.chassis.paging import read_page
from prebuilds.reconciler.auditing import ActorKind, Auditing
from prebuilds.reconciler.queries.filters import AuditFilter
from prebuilds.reconciler.rpc.admin_messages import audit_message
from prebuilds.v1 import admin_service_pb2 as pb
from prebuilds.v1.admin_service_pb2_grpc import AdminServiceServicer

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_FILTERS: Final = ("actor", "actor_kind", "action", "resource_type", "resource_id")
_NUMBERS: Final = 2**63
"""Numbers of events are below this."""


class RecordMethods(AdminServiceServicer):
    """The records of what was done."""

    _auditing: Auditing

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        """Answer who changed what, newest first."""
        fields = Fields()
        organization = fields.optional("organization", request.organization)
        conditions = fields.filter(request.filter, _FILTERS)
        wanted = AuditFilter(
            start=_time(fields, "start_time", request.start_time, is_set=request.HasField("start_time")),
            end=_time(fields, "end_time", request.end_time, is_set=request.HasField("end_time")),
            actor=conditions.text("actor"),
            actor_kind=conditions.word("actor_kind", ActorKind),
            action=conditions.text("action"),
            resource=conditions.text("resource_type"),
            resource_id=conditions.id("resource_id"),
        )
        page = read_page(fields, request, _by_time)
        fields.done()

        listed = await self._auditing.list(current_caller(), organization, wanted, page)

        return pb.ListAuditEventsResponse(
            audit_events=map(audit_message, listed.things), next_page_token=listed.next_token
        )


def _time(fields: Fields, field: str, value: Timestamp, *, is_set: bool) -> datetime | None:
    return fields.time(field, value) if is_set else None


def _by_time(texts: Sequence[str]) -> tuple[datetime, int]:
    """Read the key of a list by time, then number."""
    time, text = texts
    at, number = datetime.fromisoformat(time), int(text)
    if at.tzinfo is None or not 0 <= number < _NUMBERS:
        raise ValueError(text)
    return at, number
