"""What a pool is: its preset, its prebuilds, and the counts that the plan goes by (behaviour section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.rules.target import Wish


class Activity(StrEnum):
    """What a prebuild is doing, by its latest build and that build's job."""

    RUNNING = "running"
    QUEUED = "queued"
    """Its first start waits for a daemon."""
    STARTING = "starting"
    STOPPING = "stopping"
    DELETING = "deleting"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELING = "canceling"
    """Its build is being given up: its place is free already."""
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a preset says about its pool."""

    is_active: bool
    """Its version is the template's active one, the template neither deleted nor deprecated."""
    wish: Wish
    ttl: timedelta | None = None
    last_invalidated_at: datetime | None = None
    status: PresetStatus = PresetStatus.HEALTHY
    retry_requested_at: datetime | None = None
    max_starting: int | None = None
    """Most prebuilds of the template that may be starting at once; None is unlimited."""
    is_over_quota: bool = False
    """Whether it is on record that the allowance keeps the pool from its target."""


@dataclass(frozen=True, slots=True)
class Prebuild:
    """One unclaimed prebuild."""

    workspace_id: WorkspaceId
    created_at: datetime
    activity: Activity
    is_ready: bool = False
    """Ready and connected; that it is also unexpired and active is decided here."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many prebuilds of a pool are in which state; not a partition."""

    running: int = 0
    """Expired ones included."""
    expired: int = 0
    ready: int = 0
    """Running, unexpired, ready and connected."""
    starting: int = 0
    """First starts that wait included."""
    queued: int = 0
    """First starts that wait for a daemon."""
    stopping: int = 0
    deleting: int = 0
    parked: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """Recent start builds of a preset by the system user; canceled ones count for nothing."""

    failed: int = 0
    """Failed ones within the lookback, of either class."""
    last_failed_at: datetime | None = None
    """Creation of the newest of them."""
    newest_failed_rank: int | None = None
    """Its place among the preset's start builds, 1 is the newest."""
    template_faults_in_a_row: int = 0
    """How many of the newest start builds failed by the template's fault, without another between them.

    Of builds that were queued together those that did not fail so count as the newer ones: a template of which some
    prebuilds come up is not hard limited by the order of ids.
    """
    newest_at: datetime | None = None
    """Creation of the newest start build that says something of the template: neither canceled nor failed by the
    infrastructure."""
    retry_succeeded: bool = False
    """Whether a start build queued after the preset's `retry_requested_at` succeeded and its prebuild has become ready
    or was claimed; a build alone would not do, since its startup may yet fail."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What the prebuilds of an organisation may still cost, where their group has an allowance."""

    room: int
    """The allowance less what all prebuilds of the organisation cost a day; below 0 where they cost more."""
    cost: int
    """What one more of this pool is charged: the newest known cost of its version and preset, else 0."""

    def admits(self, wanted: int) -> int:
        """How many of these the allowance has room for."""
        if self.room < 0:
            return 0
        return wanted if self.cost <= 0 else min(wanted, self.room // self.cost)


@dataclass(frozen=True, slots=True)
class State:
    """A pool beside its target: the figures that people see."""

    desired: int
    actual: int
    expired: int
    eligible: int
    extraneous: int
    starting: int
    stopping: int
    deleting: int


def is_expired(policy: Policy, created_at: datetime, now: datetime) -> bool:
    """Whether a running prebuild is too old, or older than the preset's last invalidation; both edges exclusive."""
    if policy.last_invalidated_at is not None and created_at < policy.last_invalidated_at:
        return True
    return policy.ttl is not None and policy.ttl > timedelta(0) and now - created_at > policy.ttl


def count(policy: Policy, prebuilds: Iterable[Prebuild], now: datetime) -> Counts:
    """Count the prebuilds of one pool; the snapshot's statements count the same way for all pools at once."""
    by_activity = dict.fromkeys(Activity, 0)
    expired = ready = 0
    for prebuild in prebuilds:
        by_activity[prebuild.activity] += 1
        if prebuild.activity is Activity.RUNNING:
            if is_expired(policy, prebuild.created_at, now):
                expired += 1
            elif prebuild.is_ready:
                ready += 1
    return Counts(
        running=by_activity[Activity.RUNNING],
        expired=expired,
        ready=ready,
        starting=by_activity[Activity.STARTING] + by_activity[Activity.QUEUED],
        queued=by_activity[Activity.QUEUED],
        stopping=by_activity[Activity.STOPPING],
        deleting=by_activity[Activity.DELETING],
        parked=by_activity[Activity.STOPPED],
        failed=by_activity[Activity.FAILED] + by_activity[Activity.CANCELED],
    )


def state_of(policy: Policy, counts: Counts, desired: int) -> State:
    """The figures of a pool; eligible and extraneous are 0 where the preset is inactive."""
    unexpired = counts.running - counts.expired
    return State(
        desired=desired,
        actual=counts.running,
        expired=counts.expired,
        eligible=counts.ready if policy.is_active else 0,
        extraneous=max(unexpired - desired, 0) if policy.is_active else 0,
        starting=counts.starting,
        stopping=counts.stopping,
        deleting=counts.deleting,
    )
