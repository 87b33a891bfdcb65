"""Ids of things that no organisation keeps the request of: made of the request, so that a repetition meets them."""

from __future__ import annotations

from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from prebuilds.chassis.caller import Caller


def id_of_request(caller: Caller, method: str, request_id: str) -> UUID:
    """The id of what a request makes: the same for each repetition, another one for each request without an id."""
    if not request_id:
        return uuid4()
    return uuid5(NAMESPACE_URL, f"{caller.key}\n{method}\n\n{request_id}")
