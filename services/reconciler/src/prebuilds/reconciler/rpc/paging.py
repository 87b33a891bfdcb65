"""Page tokens: opaque, and good only for the query that they were made for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, cast

from google.protobuf.message import Message

from prebuilds.domain.refusals import Reason, Refusal

T = TypeVar("T")
Key = tuple[str, ...]
"""Where a page ended, as texts."""

_DIGEST: Final = 12


def read_token(request: Message, parts: int) -> Key | None:
    """Where the page before ended; None for the first page. Raises Refusal PAGE_TOKEN_INVALID."""
    token = str(getattr(request, "page_token"))  # noqa: B009 - every list request has one
    if not token:
        return None
    try:
        decoded: object = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error, RecursionError):
        decoded = None
    texts = cast("list[object]", decoded) if isinstance(decoded, list) else []
    if len(texts) != parts + 1 or not all(isinstance(text, str) for text in texts) or texts[0] != _query(request):
        raise Refusal(Reason.PAGE_TOKEN_INVALID, "the page token is not of this query; begin again without one")
    return tuple(str(text) for text in texts[1:])


def cut_page(request: Message, rows: Sequence[T], size: int, key_of: Callable[[T], Key]) -> tuple[Sequence[T], str]:
    """One page of rows, of which one more than `size` were asked for, and the token of the next."""
    if len(rows) <= size:
        return rows, ""
    page = rows[:size]
    body = json.dumps([_query(request), *key_of(page[-1])]).encode()
    return page, base64.urlsafe_b64encode(body).decode()


def _query(request: Message) -> str:
    """The request without its page, in short."""
    bare = type(request)()
    bare.CopyFrom(request)
    for field in ("page_token", "page_size"):
        bare.ClearField(field)
    text = bare.SerializeToString(deterministic=True)
    return hashlib.sha256(bare.DESCRIPTOR.full_name.encode() + b"\n" + text).hexdigest()[:_DIGEST]
