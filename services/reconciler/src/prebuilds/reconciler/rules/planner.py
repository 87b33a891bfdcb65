"""The plan of a pool: what has to be done to bring it to its target (behaviour section 4).

`plan` decides by counts, which one snapshot has for all pools; `name_deletions` then says which prebuilds go, for the
pools that have work. Neither waits for anything or knows the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from prebuilds.domain.ids import WorkspaceId
from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.rules.state import (
    Activity,
    Counts,
    History,
    Policy,
    Prebuild,
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


class Block(StrEnum):
    """What keeps a pool from its target."""

    BACKING_OFF = "backing_off"
    HARD_LIMITED = "hard_limited"
    VALIDATION_FAILED = "validation_failed"
    MAX_STARTING = "max_starting"


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
    """What a pool is and what is to be done, in this order."""

    state: State
    target: Target
    actions: tuple[Action, ...]
    is_hard_limited: bool = False
    blocks: tuple[Block, ...] = ()

    @property
    def has_work(self) -> bool:
        """Whether anything would be changed; to back off changes nothing."""
        return any(not isinstance(action, BackOff) for action in self.actions)


def can_skip(policy: Policy, counts: Counts) -> bool:
    """Whether the pool needs no plan at all: inactive, nothing running or queued. Implies that there are no actions."""
    return not policy.is_active and counts.running == 0 and counts.queued == 0


def plan(
    policy: Policy,
    counts: Counts,
    history: History,
    now: datetime,
    config: Config,
    *,
    template_starting: int = 0,
) -> Plan:
    """Plan one pool.

    1. Inactive: cancel what is queued, delete all that runs, nothing else.
    2. Active: delete the expired, then the oldest above the target, then fill up.
    3. Within the backoff of recent failures a `BackOff` stands in place of the create.
    4. After too many faults of the template no create, but one where a retry was asked for and nothing is starting.
    5. A preset that is invalid creates nothing.
    6. Creates stay within the target and the template's `max_starting`, of which `template_starting` are used.
    """
    target = target_at(policy.wish, now, is_active=policy.is_active)
    state = state_of(policy, counts, target.instances)
    if not policy.is_active:
        return Plan(state, target, _drain(counts))
    deletions = [
        Delete(reason, number)
        for reason, number in ((DeleteReason.EXPIRED, state.expired), (DeleteReason.EXTRANEOUS, state.extraneous))
        if number > 0
    ]
    need = max(state.desired - (state.actual - state.expired) - state.starting, 0)
    hard_limited = policy.status is PresetStatus.HARD_LIMITED or reaches_hard_limit(history, config)
    fill: list[Action] = []
    blocks: list[Block] = []
    if policy.status is PresetStatus.VALIDATION_FAILED:
        blocks.append(Block.VALIDATION_FAILED)
    elif hard_limited:
        blocks.append(Block.HARD_LIMITED)
        if need > 0 and state.starting == 0 and _retry_is_open(policy, history):
            fill.append(Create(1))
    elif (back_off := backs_off(history, state.desired, now, config)) is not None:
        blocks.append(Block.BACKING_OFF)
        fill.append(back_off)
    elif need > 0:
        room = need if policy.max_starting is None else max(policy.max_starting - template_starting, 0)
        if room < need:
            blocks.append(Block.MAX_STARTING)
        if min(need, room) > 0:
            fill.append(Create(min(need, room)))
    return Plan(state, target, (*deletions, *fill), is_hard_limited=hard_limited, blocks=tuple(blocks))


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


def _retry_is_open(policy: Policy, history: History) -> bool:
    """Whether somebody asked to try again and no start was queued since."""
    if policy.retry_requested_at is None:
        return False
    return history.newest_at is None or history.newest_at < policy.retry_requested_at
