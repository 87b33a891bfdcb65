"""Lists as a whole, page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from prebuilds.sdk.client import Method, PrebuildsClient

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


async def pages(
    client: PrebuildsClient, method: Method[RequestT, ResponseT], request: RequestT
) -> AsyncGenerator[ResponseT]:
    """Call a list method until there are no more pages; the request is used up by it."""
    # All lists are paged alike (AIP-158), but share no type that says so.
    asked = cast("Any", request)
    asked.page_size = asked.page_size or 500
    while True:
        page = await client.call(method, request)
        yield page
        asked.page_token = cast("Any", page).next_page_token
        if not asked.page_token:
            return
