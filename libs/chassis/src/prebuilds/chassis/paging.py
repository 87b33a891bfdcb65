"""Pages of lists; their tokens are opaque, and good only for the query that they were made for."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar, cast
from uuid import UUID

from google.protobuf.message import Message

from prebuilds.chassis.fields import Fields
from prebuilds.domain.refusals import Reason, Refusal

T = TypeVar("T")
K = TypeVar("K", bound="tuple[object, ...]")

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 500

_DIGEST_LENGTH: Final = 12


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; without a next token it is the last."""

    things: Sequence[T]
    next_token: str


@dataclass(frozen=True, slots=True)
class PageWish(Generic[K]):
    """Which page of a query is wanted; K is the key by which its list is ordered."""

    query: str
    """Digest of everything in the request that decides what is listed."""
    size: int
    token: str
    parse: Callable[[Sequence[str]], K]

    @property
    def limit(self) -> int:
        """How many things to read: one more than a page has, which tells whether there is another page."""
        return self.size + 1

    def after(self) -> K | None:
        """Where the page before ended; None for the first page. Raises Refusal PAGE_TOKEN_INVALID."""
        if not self.token:
            return None
        try:
            decoded: object = json.loads(base64.urlsafe_b64decode(self.token.encode()))
            query, *parts = cast("list[object]", decoded) if isinstance(decoded, list) else []
            if query != self.query or not all(isinstance(part, str) and _is_storable(part) for part in parts):
                raise _invalid()
            # Anybody can make a token, so its parts are no more to be trusted than any other field.
            return self.parse(cast("list[str]", parts))
        except (ValueError, RecursionError) as error:
            raise _invalid() from error

    def cut(self, things: Sequence[T], key_of: Callable[[T], K]) -> Page[T]:
        """Make the page of what was read: `limit` things at most."""
        if len(things) <= self.size:
            return Page(things, "")
        page = things[: self.size]
        body = json.dumps([self.query, *map(str, key_of(page[-1]))]).encode()
        return Page(page, base64.urlsafe_b64encode(body).decode())


def by_name(texts: Sequence[str]) -> tuple[str]:
    """Read the key of a list by name."""
    (name,) = texts
    return (name,)


def by_name_and_id(texts: Sequence[str]) -> tuple[str, UUID]:
    """Read the key of a list by name, then id."""
    name, id_ = texts
    return name, UUID(id_)


class ListRequest(Protocol):
    """What every list request has."""

    page_size: int
    page_token: str


def read_page(fields: Fields, request: ListRequest, parse: Callable[[Sequence[str]], K]) -> PageWish[K]:
    """Read which page a list request wants; `parse` makes a key of its texts, or raises ValueError.

    A bad size goes to the fields; a bad token is refused by `PageWish.after`.
    """
    size = request.page_size
    fields.check("page_size", "must not be negative", is_good=size >= 0)
    size = min(size, MAX_PAGE_SIZE) if size > 0 else DEFAULT_PAGE_SIZE
    return PageWish(_digest(request), size, request.page_token, parse)


def _digest(request: ListRequest) -> str:
    message = cast("Message", request)
    bare = type(message)()
    bare.CopyFrom(message)
    for field in ("page_token", "page_size"):
        bare.ClearField(field)
    text = bare.SerializeToString(deterministic=True)
    return hashlib.sha256(bare.DESCRIPTOR.full_name.encode() + b"\n" + text).hexdigest()[:_DIGEST_LENGTH]


def _is_storable(text: str) -> bool:
    """Whether Postgres could hold the text: no other can end a page, and a statement would fail on it."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _invalid() -> Refusal:
    return Refusal(Reason.PAGE_TOKEN_INVALID, "the page token is not of this query; begin again without one")
