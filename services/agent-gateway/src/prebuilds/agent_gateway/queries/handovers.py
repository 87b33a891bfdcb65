"""Handovers that take too long, for metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prebuilds.store.database import Database
from prebuilds.store.sql import SqlFolder

_queries: Final = SqlFolder("prebuilds.agent_gateway.queries")


@dataclass(frozen=True, slots=True)
class Unacknowledged:
    """How many handovers of a pool have been due for more than 60 s."""

    organization: str
    template: str
    preset: str
    handovers: int


async def count_unacknowledged(database: Database) -> Sequence[Unacknowledged]:
    """Count them by pool, names as labels; pools without any are left out."""
    return await database.fetch_once("count unacknowledged", _queries["unacknowledged"], row=Unacknowledged)
