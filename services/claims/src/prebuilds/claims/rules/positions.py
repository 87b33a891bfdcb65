"""Where a list goes on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Position(NamedTuple):
    """The last thing on a page: lists are ordered by time, then id."""

    time: datetime
    id: UUID

    @classmethod
    def read(cls, texts: Sequence[str]) -> Position:
        """Read a page token's parts; raises ValueError where they are of no position."""
        time, id_ = texts
        position = cls(datetime.fromisoformat(time), UUID(id_))
        if position.time.tzinfo is None:
            raise ValueError("a time without a zone")
        return position
