"""How many prebuilds a pool should have at a moment, and where that comes from (behaviour section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from prebuilds.reconciler.rules.schedule import Schedule, ScheduleError, Timetable, compile_timetable


class TargetSource(StrEnum):
    """Where a target comes from."""

    INSTANCES = "instances"
    SCHEDULE = "schedule"
    INACTIVE = "inactive"


@dataclass(frozen=True, slots=True)
class Target:
    """How many prebuilds are wanted at a moment, and why."""

    instances: int
    source: TargetSource
    schedule_index: int | None = None


@dataclass(frozen=True, slots=True)
class NextChange:
    """When a target changes by itself, and to what other number."""

    at: datetime
    instances: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What a preset asks for, compiled once: its number, its timetable, or why that cannot be followed."""

    instances: int
    timetable: Timetable | None = None
    error: str = ""
    """What is wrong with stored schedules that should not exist; `instances` count then."""


def compile_wish(instances: int | None, timezone: str, schedules: Sequence[Schedule]) -> Wish:
    """Compile what a preset asks for; a preset that asks for no pool wants none."""
    wanted = instances or 0
    if not schedules:
        return Wish(wanted)
    try:
        return Wish(wanted, compile_timetable(timezone, schedules))
    except ScheduleError as error:
        return Wish(wanted, error=str(error))


def target_at(wish: Wish, now: datetime, *, is_active: bool) -> Target:
    """What is wanted at that moment, in this order: inactive 0; the schedule that holds; `instances`."""
    if not is_active:
        return Target(0, TargetSource.INACTIVE)
    if wish.timetable is not None:
        index = wish.timetable.index_at(now)
        if index is not None:
            return Target(wish.timetable.entries[index][1], TargetSource.SCHEDULE, index)
    return Target(wish.instances, TargetSource.INSTANCES)


def change_within(wish: Wish, now: datetime, horizon: timedelta, *, is_active: bool) -> datetime | None:
    """When another number is wanted, where that comes within this time; as of `next_change_after`, but quick."""
    if not is_active or wish.timetable is None:
        return None
    return wish.timetable.change_within(now, horizon, wish.instances)


def next_change_after(wish: Wish, now: datetime, *, is_active: bool) -> NextChange | None:
    """When another number is wanted; None where that never changes by itself. Another source alone is no change."""
    if not is_active or wish.timetable is None:
        return None
    at = wish.timetable.next_change(now, wish.instances)
    if at is None:
        return None
    return NextChange(at, target_at(wish, at, is_active=True).instances)
