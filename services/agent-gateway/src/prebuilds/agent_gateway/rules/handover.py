"""What a reinit stream gets, decided by numbers and never by the state of a claim (behaviour section 8).

A model of every interleaving found that answers by the claim's state break when a stop is queued before the
acknowledgement and then fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a stream stands: its incarnation beside what Postgres has of the agent and its workspace."""

    is_revoked: bool
    """The workspace is deleted, the token of an earlier epoch, or the agent retired."""
    incarnation: int
    """The stream's own."""
    stored_incarnation: int
    generation: int
    """The generation whose manifest the stored incarnation runs."""
    handover_generation: int
    claim_generation: int
    is_prebuild: bool
    """Owned by the system user."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """Nothing here is for the holder of this token any more."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Another incarnation has begun."""


@dataclass(frozen=True, slots=True)
class Reinitialise:
    """Send `Reinit` for this generation, once, and hold until the agent leaves."""

    generation: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing to tell yet."""


@dataclass(frozen=True, slots=True)
class NeverAPrebuild:
    """There is no handover to wait for."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Handed over: nothing will follow."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """An incarnation that runs a generation which was never handed over; cannot happen, and is logged when it does."""


Answer: TypeAlias = Revoked | Stale | Reinitialise | Hold | NeverAPrebuild | Finished | Unreachable


def answer_to(standing: Standing) -> Answer:
    """What does a stream that stands there get? The first that fits (behaviour section 8).

    1. deleted, revoked or retired: `Revoked`
    2. another incarnation than the stored one: `Stale`; a higher one too, which only a restored backup brings about
    3. the incarnation's generation is below the one handed over: `Reinitialise`
    4. owned by the system user: `Hold`
    5. never claimed: `NeverAPrebuild`
    6. the claim build is unfinished or failed: `Hold`
    7. all three generations are equal: `Finished`
    8. anything else: `Unreachable`
    """
    if standing.is_revoked:
        return Revoked()
    if standing.incarnation != standing.stored_incarnation:
        return Stale()
    if standing.generation < standing.handover_generation:
        return Reinitialise(standing.handover_generation)
    if standing.is_prebuild:
        return Hold()
    if standing.claim_generation == 0:
        return NeverAPrebuild()
    if standing.handover_generation < standing.claim_generation:
        return Hold()
    if standing.generation == standing.handover_generation == standing.claim_generation:
        return Finished()
    return Unreachable()
