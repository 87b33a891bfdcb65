"""Schedules of a pool: which one holds at a moment, and when that changes next (behaviour section 2).

A pool's schedules are compiled once; a `Timetable` answers for any moment. Whole hours of the zone's wall clock are the
grain: an hour that happens twice in autumn counts twice, one that is skipped in spring does not happen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import combinations
from typing import Final
from zoneinfo import ZoneInfo

from prebuilds.domain.cron import CronError, is_zone
from prebuilds.reconciler.rules.cron import Cron, parse_range

_HOURS: Final = range(24)
_EVERY_DATE: Final = parse_range("* * * * *").dates()
_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_MINUTE: Final = timedelta(minutes=1)
_HORIZON_DAYS: Final = 3000
"""How far the next change is looked for: longer than the eight years that can lie between two 29 Februaries."""
_REMEMBERED: Final = 16_384
"""Sets of schedules; presets of one template share theirs, and each push makes new presets with the old text."""


class ScheduleError(ValueError):
    """Schedules that cannot be followed; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A range in which a pool wants another number of prebuilds, as it is stored."""

    cron: str
    instances: int


@dataclass(frozen=True, slots=True)
class Timetable:
    """Compiled schedules of one pool, in one zone; no two of them overlap."""

    zone: ZoneInfo
    entries: tuple[tuple[Cron, int], ...]
    _changes: dict[int | None, tuple[datetime, datetime | None]] = field(
        default_factory=dict[int | None, tuple[datetime, datetime | None]], init=False, repr=False, compare=False
    )
    """For each number outside, the moment that was asked about last and the change after it, which is that of all
    moments between the two."""

    def index_at(self, now: datetime) -> int | None:
        """Which schedule's range contains the moment; None where none does."""
        local = now.astimezone(self.zone)
        return self._index_in(local.date(), local.hour)

    def next_change(self, now: datetime, outside: int | None = None) -> datetime | None:
        """When another number than the present one is wanted; None where that never changes.

        `outside` is the number where no schedule holds; without it that is unlike every number.
        """
        if outside in self._changes:
            asked, change = self._changes[outside]
            if asked <= now and (change is None or now < change):
                return change
        change = self._find_change(now, outside)
        self._changes[outside] = now, change
        return change

    def change_within(self, now: datetime, horizon: timedelta, outside: int | None = None) -> datetime | None:
        """The next change, as of `next_change`, where it comes within that time, a day at most; None where it does not.

        Quick: of thousands of pools few have an edge soon, and of the others no calendar is gone through.
        """
        local, end = now.astimezone(self.zone), now + horizon
        if local.utcoffset() != end.astimezone(self.zone).utcoffset():
            change = self.next_change(now, outside)
            return change if change is not None and change <= end else None
        present = self._wanted(self.index_at(now), outside)
        edge = now - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond) + _HOUR
        while edge <= end:
            if self._wanted(self.index_at(edge), outside) != present:
                return edge
            edge += _HOUR
        return None

    def _wanted(self, index: int | None, outside: int | None) -> int | None:
        return outside if index is None else self.entries[index][1]

    def _find_change(self, now: datetime, outside: int | None) -> datetime | None:
        if self._is_constant(outside):
            return None
        present = self._wanted(self.index_at(now), outside)
        # A zone can be a day ahead of or behind the moment's own date.
        first = now.astimezone(self.zone).date() - _DAY
        for ahead in range(_HORIZON_DAYS):
            day = first + ahead * _DAY
            hours = {self._wanted(self._index_in(day, hour), outside) for hour in _HOURS}
            if hours == {present}:
                continue
            for moment in _edges(day, self.zone):
                if moment > now and self._wanted(self.index_at(moment), outside) != present:
                    return moment
        return None

    def _is_constant(self, outside: int | None) -> bool:
        """Whether one number is wanted in every hour of the calendar.

        Exact, since no two ranges overlap, and answered without going through the calendar for nothing.
        """
        sizes = [(len(cron.hours) * cron.dates().bit_count(), instances) for cron, instances in self.entries]
        numbers: set[int | None] = {instances for size, instances in sizes if size > 0}
        if sum(size for size, _ in sizes) < len(_HOURS) * _EVERY_DATE.bit_count():
            numbers.add(outside)
        return len(numbers) == 1

    def _index_in(self, day: date, hour: int) -> int | None:
        weekday = day.isoweekday() % 7
        for index, (cron, _) in enumerate(self.entries):
            if hour in cron.hours and cron.holds_on(month=day.month, day=day.day, weekday=weekday):
                return index
        return None


def compile_timetable(timezone: str, schedules: Sequence[Schedule]) -> Timetable:
    """Compile schedules; ScheduleError for an unknown zone, an expression that cannot be read, or an overlap."""
    return _compile(timezone, tuple(schedules))


@lru_cache(_REMEMBERED)
def _compile(timezone: str, schedules: tuple[Schedule, ...]) -> Timetable:
    """Compile each text once: they never change, and every replica meets all of them in its first pass."""
    zone = find_zone(timezone)
    try:
        entries = tuple((parse_range(schedule.cron), schedule.instances) for schedule in schedules)
    except CronError as error:
        raise ScheduleError(str(error)) from error
    pairs = overlapping([cron for cron, _ in entries])
    if pairs:
        first, second = pairs[0]
        raise ScheduleError(f"schedules {first} and {second} overlap")
    return Timetable(zone, entries)


def find_zone(timezone: str) -> ZoneInfo:
    """The IANA zone of that name; ScheduleError where there is none."""
    if not is_zone(timezone):
        raise ScheduleError(f"{timezone!r} is not an IANA time zone")
    return ZoneInfo(timezone)


def overlapping(crons: Sequence[Cron]) -> list[tuple[int, int]]:
    """The pairs of positions whose ranges have a minute in common."""
    ranges = [(cron.hours, cron.dates()) for cron in crons]
    return [
        (first, second)
        for (first, one), (second, other) in combinations(enumerate(ranges), 2)
        if one[0] & other[0] and one[1] & other[1]
    ]


def _edges(day: date, zone: ZoneInfo) -> Iterator[datetime]:
    """Every moment of that day at which the wall clock's hour can change: whole hours, and changes of the offset."""
    moments = {datetime.combine(day, time(hour, fold=fold), zone).astimezone(UTC) for hour in _HOURS for fold in (0, 1)}
    begin, end = min(moments), max(moments) + timedelta(hours=1)
    moments.update(_offset_changes(begin, end, zone))
    return iter(sorted(moments))


def _offset_changes(begin: datetime, end: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The minute at which the zone's offset changes within a day; a day has at most one such change."""

    def offset(moment: datetime) -> timedelta | None:
        return moment.astimezone(zone).utcoffset()

    before = offset(begin)
    if offset(end) == before:
        return
    low, high = 0, int((end - begin) / _MINUTE)
    while high - low > 1:
        middle = (low + high) // 2
        if offset(begin + middle * _MINUTE) == before:
            low = middle
        else:
            high = middle
    yield begin + high * _MINUTE
