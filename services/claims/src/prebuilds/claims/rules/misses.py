"""Why a creation was not answered by a prebuild."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prebuilds.domain.claims import MissReason
from prebuilds.domain.pools import PresetStatus
from prebuilds.domain.refusals import Reason

REFUSED_AS: Final = {miss: Reason[miss.name] for miss in MissReason}
"""The reason that a refused miss travels with; as an answer it is the same word."""

PASSING: Final = frozenset(
    {MissReason.HARD_LIMITED, MissReason.PAUSED, MissReason.ROTATING, MissReason.NONE_READY, MissReason.POOL_EMPTY}
)
"""Misses of a pool that may have a prebuild later; after the others the same request is a miss for ever."""

MESSAGES: Final = {
    MissReason.REQUESTED_COLD: "a cold build was asked for",
    MissReason.NO_MATCHING_PRESET: "no preset was named, and none fits the parameters: only presets have prebuilds",
    MissReason.NO_POOL: "no prebuilds are kept for this preset",
    MissReason.VALIDATION_FAILED: "this preset is not valid, so no prebuilds are built for it",
    MissReason.HARD_LIMITED: "no prebuild is left, and none is built: too many builds of this preset failed in a row",
    MissReason.PAUSED: "no prebuild is ready, and the pool is paused",
    MissReason.ROTATING: "no prebuild of the active version is ready yet: they are taking the older version's place",
    MissReason.NONE_READY: "no prebuild of this preset is ready yet",
    MissReason.POOL_EMPTY: "no prebuild of this preset is left",
}
"""What a person is told; complete by test."""


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """A preset's pool at the moment of a miss."""

    has_pool: bool
    status: PresetStatus
    paused: bool
    """Whether reconciliation of the pool is paused: of the preset, its template or the deployment."""
    ready: int
    """Prebuilds of the preset that are ready, eligible or not."""
    prebuilds: int
    """Prebuilds of the preset in any state."""
    older: int
    """Prebuilds of the template's other versions."""


def why_missed(facts: PoolFacts) -> MissReason:
    """Tell why nothing is eligible in this pool: the first that applies (behaviour section 6).

    1. The preset asks for no prebuilds: NO_POOL.
    2. The preset is invalid: VALIDATION_FAILED.
    3. Its prebuilds all failed by the template's fault: HARD_LIMITED.
    4. Reconciliation is paused: PAUSED.
    5. An older version still has prebuilds and this one none that is ready: ROTATING.
    6. There are prebuilds: NONE_READY.
    7. There are none: POOL_EMPTY.

    REQUESTED_COLD and NO_MATCHING_PRESET come before, where no pool is looked at.
    """
    if not facts.has_pool:
        return MissReason.NO_POOL
    if facts.status is PresetStatus.VALIDATION_FAILED:
        return MissReason.VALIDATION_FAILED
    if facts.status is PresetStatus.HARD_LIMITED:
        return MissReason.HARD_LIMITED
    if facts.paused:
        return MissReason.PAUSED
    if facts.older and not facts.ready:
        return MissReason.ROTATING
    return MissReason.NONE_READY if facts.prebuilds else MissReason.POOL_EMPTY
