"""Cron expressions of prebuild schedules: which hours and days one names (behaviour sections 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from croniter import croniter

from prebuilds.domain.cron import BOUNDS, DAY, HOUR, MINUTE, MONTH, WEEKDAY, CronError, check_grammar

_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LONGEST_MONTH: Final = max(_LONGEST_MONTHS)
_WEEK: Final = 7
_ANY_WEEKDAY: Final = (1 << _WEEK) - 1
_ANY: Final = "*"
_REMEMBERED: Final = 4096
"""Expressions, and fields of them: `croniter` takes 0.15 ms for each, a replica meets thousands in its first pass."""


@dataclass(frozen=True, slots=True)
class Cron:
    """The hours and days of an expression whose minute is `*`, read as a continuous range (behaviour section 2)."""

    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    restricts_days: bool
    """Whether the day of month is anything but `*`; when both day fields restrict, either suffices."""
    restricts_weekdays: bool

    def holds_on(self, *, month: int, day: int, weekday: int) -> bool:
        """Whether some hours of such a date are within; `weekday` 0 is Sunday."""
        if month not in self.months:
            return False
        if self.restricts_days and self.restricts_weekdays:
            return day in self.days or weekday in self.weekdays
        return day in self.days and weekday in self.weekdays

    def overlaps(self, other: Cron) -> bool:
        """Whether some minute of some year is within both."""
        return bool(self.hours & other.hours and self.dates() & other.dates())

    def dates(self) -> int:
        """Its dates as bits, one for each month, day and weekday.

        Exact: over the 400 years of the calendar every day of a month, 29 February too, falls on every weekday.
        """
        either = self.restricts_days and self.restricts_weekdays
        weekdays = sum(1 << weekday for weekday in self.weekdays)
        dates = 0
        for day in range(1, _LONGEST_MONTH + 1):
            on_day = _ANY_WEEKDAY if either else weekdays
            within = on_day if day in self.days else weekdays if either else 0
            dates |= within << (day - 1) * _WEEK
        return sum(
            (dates & (1 << days * _WEEK) - 1) << month * _LONGEST_MONTH * _WEEK
            for month, days in enumerate(_LONGEST_MONTHS)
            if month + 1 in self.months
        )


@lru_cache(_REMEMBERED)
def parse_range(expression: str) -> Cron:
    """Read an expression of a prebuild schedule; CronError where it is none, or its minute is not `*`."""
    fields = check_grammar(expression)
    if fields[MINUTE] != _ANY:
        raise CronError("the minute must be `*`: a schedule is a continuous range of whole hours")
    return Cron(
        hours=_values(HOUR, fields[HOUR]),
        days=_values(DAY, fields[DAY]),
        months=_values(MONTH, fields[MONTH]),
        weekdays=_values(WEEKDAY, fields[WEEKDAY]),
        restricts_days=fields[DAY] != _ANY,
        restricts_weekdays=fields[WEEKDAY] != _ANY,
    )


@lru_cache(_REMEMBERED)
def _values(field: int, text: str) -> frozenset[int]:
    """The numbers that a field names; a field by itself means what it means within its expression."""
    fields = [_ANY] * len(BOUNDS)
    fields[field] = text
    expanded = croniter.expand(" ".join(fields))[0][field]
    if expanded == [_ANY]:  # croniter writes a full set like this, whatever its text was.
        low, high = BOUNDS[field]
        return frozenset(range(low, high + 1))
    return frozenset(int(value) for value in expanded)
