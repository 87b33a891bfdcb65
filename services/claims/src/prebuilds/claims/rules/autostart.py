"""Whether a text says when a workspace is started by itself."""

from __future__ import annotations

import re
from typing import Final
from zoneinfo import ZoneInfo

_ZONE_PREFIX: Final = "CRON_TZ="
_PART: Final = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)


def autostart_problem(text: str) -> str | None:
    """Tell what is wrong with this autostart schedule; None: nothing. The empty text is never.

    1. An optional `CRON_TZ=<IANA zone>` and a space.
    2. Five fields of numbers, `*`, `,`, `-`, `/` and month or day names, each within its bounds.
    """
    if not text:
        return None
    zone, cron = "", text
    if text.startswith(_ZONE_PREFIX):
        zone, _, cron = text.removeprefix(_ZONE_PREFIX).partition(" ")
        if not _is_zone(zone):
            return f"{zone!r} is not an IANA time zone"
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        return "must have five cron fields, after `CRON_TZ=<zone>` and a space if the zone is not UTC"
    for field, (name, least, most, words) in zip(fields, _FIELDS, strict=True):
        if not all(_is_part(part, least, most, words) for part in field.split(",")):
            return f"{name} {field!r} is not valid"
    return None


def _is_zone(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _is_part(part: str, least: int, most: int, words: tuple[str, ...]) -> bool:
    match = _PART.fullmatch(part)
    if match is None or match["step"] == "0":
        return False
    bounds = [_number(text, least, words) for text in (match["first"], match["last"]) if text is not None]
    numbers = [number for number in bounds if number is not None and least <= number <= most]
    return len(numbers) == len(bounds) and numbers == sorted(numbers)


def _number(text: str, least: int, words: tuple[str, ...]) -> int | None:
    if text.lower() in words:
        return words.index(text.lower()) + least
    return int(text) if text.isdecimal() else None
