"""Whether a beginning of an agent process is a new incarnation (behaviour section 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Beginning:
    """One beginning: the random id of a process, and which of the process's beginnings it is, from 1."""

    process: str
    entry: int


@dataclass(frozen=True, slots=True)
class Repeated:
    """The stored incarnation asks again, its answer was lost; it gets the same."""


@dataclass(frozen=True, slots=True)
class Rises:
    """A new incarnation."""

    incarnation: int
    alternates: bool
    """A process that had begun before takes the agent back from another: two live by the same token."""


@dataclass(frozen=True, slots=True)
class Outdated:
    """A later entry of the same process has begun already; this request was late."""


Incarnation: TypeAlias = Repeated | Rises | Outdated


def incarnation_of(beginning: Beginning, *, stored: Beginning, incarnation: int) -> Incarnation:
    """Which incarnation is a beginning, where `stored` began the present one. The first that fits.

    1. The same process and entry: the same again.
    2. A lower entry of the stored process: outdated.
    3. Else the incarnation rises, by exactly one.
    """
    if beginning == stored:
        return Repeated()
    if beginning.process == stored.process:
        if beginning.entry < stored.entry:
            return Outdated()
        return Rises(incarnation + 1, alternates=False)
    return Rises(incarnation + 1, alternates=bool(stored.process) and beginning.entry > 1)
