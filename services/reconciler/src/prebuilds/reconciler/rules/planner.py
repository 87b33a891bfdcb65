"""The plan of a pool: what has to be done to bring it to its target (behaviour section 4).

`plan` decides by counts, which one snapshot has for all pools; `name_deletions` then says which prebuilds go, for the
pools that have work. Neither waits for anything or knows the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias, assert_never

from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.rules.state import (
    Activity,
    Counts,
    History,
    Policy,
    Prebuild,
    Quota,
    State,
    is_expired,
    state_of,
)
from prebuilds.reconciler.rules.target import Target, target_at


class DeleteReason(StrEnum):
    """Why prebuilds are deleted."""

    EXPIRED = "expired"
    EXTRANEOUS = "extraneous"
    INACTIVE = "inactive"


class CreateReason(StrEnum):
    """Why prebuilds are made."""

    BELOW_TARGET = "below_target"
    RETRY = "retry"
    """Somebody asked to try again in spite of the hard limit."""


class Block(StrEnum):
    """What keeps a pool from its target."""

    BACKING_OFF = "backing_off"
    HARD_LIMITED = "hard_limited"
    VALIDATION_FAILED = "validation_failed"
    MAX_STARTING = "max_starting"
    OVER_QUOTA = "over_quota"


@dataclass(frozen=True, slots=True)
class CancelPending:
    """Cancel first starts that no daemon has taken; which ones is decided when it is done."""

    count: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Mark prebuilds and queue their deletion, oldest first."""

    reason: DeleteReason
    count: int
    workspace_ids: tuple[WorkspaceId, ...] = ()
    """Filled in by `name_deletions`."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make prebuilds."""

    count: int
    reason: CreateReason = CreateReason.BELOW_TARGET


@dataclass(frozen=True, slots=True)
class BackOff:
    """Make none up to and including that moment."""

    until: datetime
    failures: int


Action: TypeAlias = CancelPending | Delete | Create | BackOff


@dataclass(frozen=True, slots=True)
class Config:
    """What an operator sets about planning."""

    backoff_interval: timedelta = timedelta(minutes=1)
    hard_limit: int = 3
    """How many template faults in a row stop a pool; 0 is off."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pool is and what is to be done: first what changes of its preset, then the actions in this order."""

    state: State
    target: Target
    actions: tuple[Action, ...]
    blocks: tuple[Block, ...] = ()
    status: PresetStatus | None = None
    """What the preset's status becomes; None: it stays."""
    is_over_quota: bool | None = None
    """Whether the preset is over quota from now on; None: that stays as it is on record."""
    was_cut: bool = False
    """Whether more creates than desired came out, which counts that contradict each other alone can bring about."""

    @property
    def has_work(self) -> bool:
        """Whether anything would be changed; to back off changes nothing."""
        return (
            self.status is not None
            or self.is_over_quota is not None
            or any(not isinstance(action, BackOff) for action in self.actions)
        )


def can_skip(policy: Policy, counts: Counts) -> bool:
    """Whether the pool needs no plan at all: inactive, nothing running, queued or to be taken off the record.

    Implies that there are no actions.
    """
    return not policy.is_active and counts.running == 0 and counts.queued == 0 and not policy.is_over_quota


def plan(
    policy: Policy,
    counts: Counts,
    history: History,
    now: datetime,
    config: Config,
    *,
    template_starting: int = 0,
    quota: Quota | None = None,
) -> Plan:
    """Plan one pool (behaviour section 4).

    1. Inactive: cancel what is queued, delete all that runs, nothing else; it is over no quota any more.
    2. Active: delete the expired, then the oldest above the target, whatever keeps the pool from being filled.
    3. Fill up to the target, what is starting included.
    4. Not while the preset is invalid.
    5. Not while it is hard limited, but for one where a retry is open; the status follows the history.
    6. Not within the backoff of recent failures: a `BackOff` stands in place of the create, also if none is needed; it
       blocks only a pool that needs some.
    7. Within the target, the template's `max_starting`, of which `template_starting` are used, and the quota, if any.
       Over quota is who needs more than the quota admits, whatever else keeps the pool from its target: its record
       does not come and go with other blocks.
    """
    target = target_at(policy.wish, now, is_active=policy.is_active)
    state = state_of(policy, counts, target.instances)
    if not policy.is_active:
        return Plan(state, target, _drain(counts), is_over_quota=False if policy.is_over_quota else None)
    deletions = [
        Delete(reason, number)
        for reason, number in ((DeleteReason.EXPIRED, state.expired), (DeleteReason.EXTRANEOUS, state.extraneous))
        if number > 0
    ]
    need = max(state.desired - (state.actual - state.expired) - state.starting, 0)
    status = status_of(policy, history, config)
    creates, reason, fill = need, CreateReason.BELOW_TARGET, list[Action]()
    blocks: list[Block] = []
    back_off = backs_off(history, state.desired, now, config)
    match status:
        case PresetStatus.VALIDATION_FAILED:
            blocks.append(Block.VALIDATION_FAILED)
            creates, back_off = 0, None
        case PresetStatus.HARD_LIMITED:
            blocks.append(Block.HARD_LIMITED)
            creates, reason = min(1, need), CreateReason.RETRY
            if state.starting > 0 or not _retry_is_open(policy, history, now):
                creates = 0
            if creates == 0 or not _failed_since_retry(policy, history):
                back_off = None
        case PresetStatus.HEALTHY:
            pass
        case _:
            assert_never(status)
    if back_off is not None:
        if need > 0:
            blocks.append(Block.BACKING_OFF)
        fill.append(back_off)
        creates = 0
    wanted = min(creates, state.desired)
    startable = _free_starts(policy, template_starting, wanted)
    if startable < wanted:
        blocks.append(Block.MAX_STARTING)
    affordable = need if quota is None else quota.admits(need)
    is_over_quota = affordable < need
    if is_over_quota:
        blocks.append(Block.OVER_QUOTA)
    admitted = min(startable, affordable)
    if admitted > 0:
        fill.append(Create(admitted, reason))
    return Plan(
        state,
        target,
        (*deletions, *fill),
        tuple(blocks),
        status if status is not policy.status else None,
        is_over_quota if is_over_quota != policy.is_over_quota else None,
        was_cut=creates > state.desired,
    )


def status_of(policy: Policy, history: History, config: Config) -> PresetStatus:
    """What an active preset's status is now.

    1. One that failed validation stays so: versions never change, and a new one has presets of its own.
    2. A hard limited one becomes healthy when what was let through by a retry came up, or the limit is off, and only
       then.
    3. A healthy one becomes hard limited when the newest start builds all failed by the template's fault.
    """
    match policy.status:
        case PresetStatus.VALIDATION_FAILED:
            return PresetStatus.VALIDATION_FAILED
        case PresetStatus.HARD_LIMITED:
            is_healed = config.hard_limit == 0 or (history.retry_succeeded and not reaches_hard_limit(history, config))
            return PresetStatus.HEALTHY if is_healed else PresetStatus.HARD_LIMITED
        case PresetStatus.HEALTHY:
            return PresetStatus.HARD_LIMITED if reaches_hard_limit(history, config) else PresetStatus.HEALTHY
        case _:
            assert_never(policy.status)


def reaches_hard_limit(history: History, config: Config) -> bool:
    """Whether the newest start builds all failed by the template's fault, as many as the limit says."""
    return 0 < config.hard_limit <= history.template_faults_in_a_row


def backs_off(history: History, desired: int, now: datetime, config: Config) -> BackOff | None:
    """The backoff that holds at this moment; failures count only while one is among the newest `desired` starts."""
    if history.failed == 0 or history.last_failed_at is None:
        return None
    if history.newest_failed_rank is not None and history.newest_failed_rank > desired:
        return None
    until = history.last_failed_at + history.failed * config.backoff_interval
    return None if now > until else BackOff(until, history.failed)


def name_deletions(result: Plan, policy: Policy, prebuilds: Sequence[Prebuild], now: datetime) -> Plan:
    """Fill in which prebuilds are deleted: the oldest of those concerned, ties by id."""
    running = sorted(
        (prebuild for prebuild in prebuilds if prebuild.activity is Activity.RUNNING),
        key=lambda prebuild: (prebuild.created_at, prebuild.workspace_id),
    )
    expired = [each for each in running if is_expired(policy, each.created_at, now)]
    unexpired = [each for each in running if not is_expired(policy, each.created_at, now)]
    concerned = {
        DeleteReason.EXPIRED: expired,
        DeleteReason.EXTRANEOUS: unexpired,
        DeleteReason.INACTIVE: running,
    }

    def named(action: Action) -> Action:
        if not isinstance(action, Delete):
            return action
        oldest = concerned[action.reason][: action.count]
        return replace(action, workspace_ids=tuple(prebuild.workspace_id for prebuild in oldest))

    return replace(result, actions=tuple(named(action) for action in result.actions))


def _drain(counts: Counts) -> tuple[Action, ...]:
    actions: list[Action] = []
    if counts.queued > 0:
        actions.append(CancelPending(counts.queued))
    if counts.running > 0:
        actions.append(Delete(DeleteReason.INACTIVE, counts.running))
    return tuple(actions)


def _retry_is_open(policy: Policy, history: History, now: datetime) -> bool:
    """Whether somebody asked to try again and no start since has said anything of the template.

    What was asked for after `now`, the beginning of the transaction that plans, is for the next one: a build that this
    one queues would seem older than the request.
    """
    if policy.retry_requested_at is None or policy.retry_requested_at > now:
        return False
    return history.newest_at is None or history.newest_at < policy.retry_requested_at


def _failed_since_retry(policy: Policy, history: History) -> bool:
    """Whether a start failed after somebody asked to try again: while the retry is open, by the infrastructure."""
    if policy.retry_requested_at is None or history.last_failed_at is None:
        return False
    return history.last_failed_at >= policy.retry_requested_at


def _free_starts(policy: Policy, template_starting: int, wanted: int) -> int:
    if policy.max_starting is None:
        return wanted
    return min(wanted, max(policy.max_starting - template_starting, 0))
