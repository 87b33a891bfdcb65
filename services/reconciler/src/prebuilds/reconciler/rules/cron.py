"""Cron expressions: the narrow grammar of behaviour section 1, and which hours and days an expression names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from croniter import croniter

MINUTE, HOUR, DAY, MONTH, WEEKDAY = range(5)
_FIELDS: Final = 5

_NAMES: Final = {
    MONTH: ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    WEEKDAY: ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_BOUNDS: Final = {MINUTE: (0, 59), HOUR: (0, 23), DAY: (1, 31), MONTH: (1, 12), WEEKDAY: (0, 6)}
_TITLES: Final = ("minute", "hour", "day of month", "month", "day of week")
_ITEM: Final = re.compile(r"(?:\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/([0-9]+))?", re.IGNORECASE | re.ASCII)

_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_WEEKDAYS: Final = range(7)


class CronError(ValueError):
    """The expression is outside of the grammar; the text says how, for people."""


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
        """Whether some minute of some year is within both.

        Exact: over the 400 years of the calendar every day of a month, 29 February too, falls on every weekday, so it
        is enough to go through all of these combinations.
        """
        if not self.hours & other.hours:
            return False
        return any(
            self.holds_on(month=month, day=day, weekday=weekday)
            and other.holds_on(month=month, day=day, weekday=weekday)
            for month in sorted(self.months & other.months)
            for day in range(1, _LONGEST_MONTHS[month - 1] + 1)
            for weekday in _WEEKDAYS
        )


def parse_range(expression: str) -> Cron:
    """Read an expression of a prebuild schedule; CronError where it is none, or its minute is not `*`."""
    fields = check_grammar(expression)
    if fields[MINUTE] != "*":
        raise CronError("the minute must be `*`: a schedule is a continuous range of whole hours")
    # croniter writes a full set as ["*"], whatever its text was.
    expanded = croniter.expand(expression)[0]
    sets = [
        frozenset(range(_BOUNDS[field][0], _BOUNDS[field][1] + 1))
        if expanded[field] == ["*"]
        else frozenset(int(value) for value in expanded[field])
        for field in range(_FIELDS)
    ]
    return Cron(
        hours=sets[HOUR],
        days=sets[DAY],
        months=sets[MONTH],
        weekdays=sets[WEEKDAY],
        restricts_days=fields[DAY] != "*",
        restricts_weekdays=fields[WEEKDAY] != "*",
    )


def check_grammar(expression: str) -> tuple[str, ...]:
    """Give the five fields of an expression; CronError for what the grammar does not know, whatever croniter says."""
    fields = tuple(expression.split())
    if len(fields) != _FIELDS:
        raise CronError(f"must have exactly five fields, not {len(fields)}")
    for field, text in enumerate(fields):
        for item in text.split(","):
            _check_item(field, item)
    return fields


def _check_item(field: int, item: str) -> None:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise CronError(f"{_TITLES[field]}: {item!r} is not a number, name, range or step")
    first, last, step = match.groups()
    if step is not None and int(step) == 0:
        raise CronError(f"{_TITLES[field]}: the step of {item!r} must be at least 1")
    if first is None:
        return
    low = _value(field, first)
    if last is not None and _value(field, last) < low:
        raise CronError(f"{_TITLES[field]}: the range {item!r} must rise")


def _value(field: int, text: str) -> int:
    low, high = _BOUNDS[field]
    if text.isdecimal():
        value = int(text)
        if not low <= value <= high:
            raise CronError(f"{_TITLES[field]}: {text} is not within {low} to {high}")
        return value
    names = _NAMES.get(field, ())
    if text.lower() not in names:
        raise CronError(f"{_TITLES[field]}: {text!r} is not known")
    return names.index(text.lower())
