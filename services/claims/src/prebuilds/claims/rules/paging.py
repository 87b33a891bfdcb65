"""Page tokens: where a list goes on, opaque to callers and bound to the query that they came from."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar, cast
from uuid import UUID

from prebuilds.domain.refusals import Reason, Refusal

T = TypeVar("T")

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 500

_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Position:
    """The last thing on a page: lists are ordered by time, then id."""

    time: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class PageWish:
    """Which page of a query is wanted."""

    query: tuple[str, ...]
    """Everything in the request that decides what is listed, the method's name first."""
    size: int
    token: str

    @property
    def limit(self) -> int:
        """How many things to read: one more than a page has, which tells whether there is another page."""
        return page_size_of(self.size) + 1

    def after(self) -> Position | None:
        """Where the page begins; raises Refusal PAGE_TOKEN_INVALID."""
        return position_of(self.query, self.token)

    def cut(self, things: Sequence[T], position: Callable[[T], Position]) -> Page[T]:
        """Make the page of what was read."""
        on_page = things[: self.limit - 1]
        more = len(things) > len(on_page)
        return Page(on_page, page_token(self.query, position(on_page[-1])) if more else "")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; without a next token it is the last."""

    things: Sequence[T]
    next_token: str


def page_size_of(asked: int) -> int:
    """Give how many things are on a page: 0 asks for the default, too many for the most."""
    return min(asked, MAX_PAGE_SIZE) if asked else DEFAULT_PAGE_SIZE


def page_token(query: Sequence[str], position: Position) -> str:
    """Give the token with which this query goes on after the position."""
    content = json.dumps([_digest(query), position.time.isoformat(), str(position.id)])
    return base64.urlsafe_b64encode(content.encode()).decode()


def position_of(query: Sequence[str], token: str) -> Position | None:
    """Read where this query goes on; None: at its beginning.

    Raises Refusal PAGE_TOKEN_INVALID for a token that is none, or that is of another query.
    """
    if not token:
        return None
    try:
        content = cast("object", json.loads(base64.urlsafe_b64decode(token.encode())))
        if not isinstance(content, list) or len(cast("list[object]", content)) != _PARTS:
            raise _invalid()
        digest, time, id_ = (str(part) for part in cast("list[object]", content))
        position = Position(datetime.fromisoformat(time), UUID(id_))
    except ValueError as error:
        raise _invalid() from error
    if digest != _digest(query) or position.time.tzinfo is None:
        raise _invalid()
    return position


def _digest(query: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(query)).encode()).hexdigest()[:16]


def _invalid() -> Refusal:
    return Refusal(Reason.PAGE_TOKEN_INVALID, "the page token is not of this query")
