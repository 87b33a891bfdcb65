"""Claims: what a caller may ask for, and how a claim goes on (behaviour section 6)."""

from __future__ import annotations

from enum import StrEnum


class ClaimMode(StrEnum):
    """What happens when no prebuild is eligible."""

    PREFER_WARM = "prefer_warm"
    REQUIRE_WARM = "require_warm"
    WAIT = "wait"
    COLD = "cold"


class ClaimStrategy(StrEnum):
    """Whether a claim of a version's prebuilds needs a job."""

    PROVISION = "provision"
    INSTANT = "instant"


class ClaimState(StrEnum):
    """`building -> handing_over -> acknowledged | failed | superseded`; `instant` starts at `handing_over`."""

    BUILDING = "building"
    HANDING_OVER = "handing_over"
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def is_over(self) -> bool:
        """True in the three states in which every claim ends."""
        return self not in {ClaimState.BUILDING, ClaimState.HANDING_OVER}


class MissReason(StrEnum):
    """Why a creation was not answered by a prebuild; the first that applies, in this order."""

    REQUESTED_COLD = "requested_cold"
    NO_MATCHING_PRESET = "no_matching_preset"
    NO_POOL = "no_pool"
    VALIDATION_FAILED = "validation_failed"
    HARD_LIMITED = "hard_limited"
    PAUSED = "paused"
    ROTATING = "rotating"
    NONE_READY = "none_ready"
    POOL_EMPTY = "pool_empty"
