"""The servicer of `ClaimService`. ListWaiting is not built yet: there is no line to list."""

from __future__ import annotations

from typing import Any, Final

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import read_id
from prebuilds.chassis.paging import read_page
from prebuilds.claims.queries.filters import ClaimFilter
from prebuilds.claims.reading import Reading
from prebuilds.claims.rpc.fields import WorkspaceFields, named_by, person_by
from prebuilds.claims.rpc.messages import claim_message
from prebuilds.claims.rules.positions import Position
from prebuilds.domain.claims import ClaimState
from prebuilds.domain.ids import ClaimId
from prebuilds.v1 import claim_service_pb2 as pb
from prebuilds.v1.claim_service_pb2_grpc import ClaimServiceServicer

_Context = grpc.aio.ServicerContext[Any, Any]

_FILTER: Final = ("state", "unacknowledged", "owner", "workspace", "template", "preset")


class Claims(ClaimServiceServicer):
    """What became of claims."""

    def __init__(self, reading: Reading) -> None:
        """Read requests for this."""
        self._reading = reading

    async def GetClaim(self, request: pb.GetClaimRequest, context: _Context) -> pb.GetClaimResponse:
        """Give one claim."""
        claim_id = ClaimId(read_id(request.id))
        claim = await self._reading.claim(current_caller(), claim_id)
        return pb.GetClaimResponse(claim=claim_message(claim))

    async def ListClaims(self, request: pb.ListClaimsRequest, context: _Context) -> pb.ListClaimsResponse:
        """Give a page of claims."""
        fields = WorkspaceFields()
        organization = fields.named("organization", request.organization)
        page = read_page(fields, request, Position.read)
        values = fields.filter(request.filter, _FILTER)
        wanted = ClaimFilter(
            owner=person_by(values, "owner"),
            state=values.word("state", ClaimState),
            unacknowledged=values.truth("unacknowledged") or False,
            workspace_id=values.id("workspace"),
            template=named_by(values, "template"),
            preset_id=values.id("preset"),
        )
        fields.done()
        listed = await self._reading.claims(current_caller(), organization, wanted, page)
        return pb.ListClaimsResponse(
            claims=[claim_message(claim) for claim in listed.things], next_page_token=listed.next_token
        )
