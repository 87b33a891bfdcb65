"""The figures of pools that metrics show, added up by the names that they are labelled with (behaviour section 10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.rules.state import Counts, Policy, state_of
from prebuilds.reconciler.rules.target import target_at


class PoolName(NamedTuple):
    """What a pool is labelled with; those of several versions share it."""

    organization: str
    template: str
    preset: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One pool of one version, as a snapshot has it."""

    name: PoolName
    policy: Policy
    counts: Counts
    waiting: int
    is_paused: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """The pools of one name: that of the active version, and those of others that are not empty yet."""

    desired: int
    running: int
    eligible: int
    starting: int
    extraneous: int
    waiting: int
    is_hard_limited: bool
    """Of the active version, as are the next two."""
    is_validation_failed: bool
    is_paused: bool

    def __add__(self, other: Figures) -> Figures:
        """Those of both."""
        return Figures(
            self.desired + other.desired,
            self.running + other.running,
            self.eligible + other.eligible,
            self.starting + other.starting,
            self.extraneous + other.extraneous,
            self.waiting + other.waiting,
            self.is_hard_limited or other.is_hard_limited,
            self.is_validation_failed or other.is_validation_failed,
            self.is_paused or other.is_paused,
        )


def figures_of(pool: Observed, now: datetime) -> Figures:
    """The figures of one pool, by the rules of the pass: of an inactive one only what still runs or starts."""
    policy = pool.policy
    target = target_at(policy.wish, now, is_active=policy.is_active)
    state = state_of(policy, pool.counts, target.instances)
    return Figures(
        state.desired,
        state.actual,
        state.eligible,
        state.starting,
        state.extraneous,
        pool.waiting,
        policy.is_active and policy.status is PresetStatus.HARD_LIMITED,
        policy.is_active and policy.status is PresetStatus.VALIDATION_FAILED,
        policy.is_active and pool.is_paused,
    )


def add_up(pools: Iterable[Observed], now: datetime) -> Mapping[PoolName, Figures]:
    """Add the figures up by name."""
    added: dict[PoolName, Figures] = {}
    for pool in pools:
        figures, before = figures_of(pool, now), added.get(pool.name)
        added[pool.name] = figures if before is None else before + figures
    return added
