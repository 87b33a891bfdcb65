"""The servicer of `ClaimService`. ListWaiting is not built yet: there is no line to list."""

from __future__ import annotations

from typing import Any, Final

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.claims.queries.naming import NOBODY
from prebuilds.claims.queries.workspaces import ClaimFilter
from prebuilds.claims.reading import Reading
from prebuilds.claims.rpc.fields import Fields
from prebuilds.claims.rpc.filters import FilterValues
from prebuilds.claims.rpc.messages import claim_message
from prebuilds.claims.rules.paging import PageWish
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
        fields = Fields()
        claim_id = ClaimId(fields.id("id", request.id))
        fields.done()
        claim = await self._reading.claim(current_caller(), claim_id)
        return pb.GetClaimResponse(claim=claim_message(claim))

    async def ListClaims(self, request: pb.ListClaimsRequest, context: _Context) -> pb.ListClaimsResponse:
        """Give a page of claims."""
        fields = Fields()
        organization = fields.named("organization", request.organization)
        size = fields.page_size(request.page_size)
        values = FilterValues(fields, request.filter, _FILTER)
        wanted = ClaimFilter(
            owner=values.person("owner"),
            state=values.word("state", ClaimState),
            unacknowledged=values.boolean("unacknowledged") or False,
            workspace_id=values.id("workspace"),
            template=values.named("template") or NOBODY,
            preset_id=values.id("preset"),
        )
        fields.done()
        query = ("ListClaims", request.organization, request.filter)
        page = await self._reading.claims(
            current_caller(), organization, wanted, PageWish(query, size, request.page_token)
        )
        return pb.ListClaimsResponse(
            claims=[claim_message(claim) for claim in page.things], next_page_token=page.next_token
        )
