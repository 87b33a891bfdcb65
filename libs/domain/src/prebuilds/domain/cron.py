"""Cron expressions: the one narrow grammar of prebuild schedules and of autostart (behaviour section 1)."""

from __future__ import annotations

import re
from functools import cache
from typing import Final
from zoneinfo import available_timezones

MINUTE, HOUR, DAY, MONTH, WEEKDAY = range(5)
MAX_LENGTH: Final = 200
"""Characters of an expression."""
BOUNDS: Final = {MINUTE: (0, 59), HOUR: (0, 23), DAY: (1, 31), MONTH: (1, 12), WEEKDAY: (0, 6)}
"""The smallest and the largest number of each field; weekday 0 is Sunday."""

_ZONE_PREFIX: Final = "CRON_TZ="
_NAMES: Final = {
    MONTH: ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    WEEKDAY: ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_TITLES: Final = ("minute", "hour", "day of month", "month", "day of week")
_ITEM: Final = re.compile(r"(?:\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/([0-9]+))?", re.IGNORECASE | re.ASCII)
_OF_THE_MACHINE: Final = frozenset({"localtime", "posixrules"})
"""What a machine's folder of zones may hold beside them."""


class CronError(ValueError):
    """The expression is outside of the grammar; the text says how, for people."""


def check_grammar(expression: str) -> tuple[str, ...]:
    """Give the five fields of an expression; CronError for what the grammar does not know."""
    if len(expression) > MAX_LENGTH:
        raise CronError(f"must have at most {MAX_LENGTH} characters")
    if not (expression.isascii() and expression.isprintable()):
        raise CronError("must be of ASCII letters, digits, signs and spaces")
    fields = tuple(expression.split())
    if len(fields) != len(_TITLES):
        raise CronError(f"must have exactly five fields, not {len(fields)}")
    for field, text in enumerate(fields):
        for item in text.split(","):
            _check_item(field, item)
    return fields


def autostart_problem(text: str) -> str | None:
    """Tell what is wrong with this autostart schedule; None: nothing. The empty text is never.

    1. An optional `CRON_TZ=<IANA zone>` and a space.
    2. Five fields of numbers, `*`, `,`, `-`, `/` and month or day names, each within its bounds.
    """
    if not text:
        return None
    cron = text
    if text.startswith(_ZONE_PREFIX):
        zone, _, cron = text.removeprefix(_ZONE_PREFIX).partition(" ")
        if not is_zone(zone):
            return f"{zone!r} is not an IANA time zone"
    try:
        check_grammar(cron)
    except CronError as error:
        return str(error)
    return None


def is_zone(name: str) -> bool:
    """Whether this is the name of an IANA time zone, whatever else a machine's folder of zones may hold."""
    return name in _zones()


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - _OF_THE_MACHINE


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
    low, high = BOUNDS[field]
    if text.isdecimal():
        value = int(text)
        if not low <= value <= high:
            raise CronError(f"{_TITLES[field]}: {text} is not within {low} to {high}")
        return value
    names = _NAMES.get(field, ())
    if text.lower() not in names:
        raise CronError(f"{_TITLES[field]}: {text!r} is not known")
    return names.index(text.lower())
