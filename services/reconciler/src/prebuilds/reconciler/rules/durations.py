"""Durations as people write them in a manifest: `8h`, `1h30m`, `90s`, `30d`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_WHOLE: Final = re.compile(r"(?:[0-9]{1,9}[dhms])+", re.ASCII)
_PART: Final = re.compile(r"([0-9]+)([dhms])", re.ASCII)
_UNITS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}


def parse_duration(text: str) -> timedelta:
    """Read a duration; ValueError where the text is none."""
    if _WHOLE.fullmatch(text) is None:
        raise ValueError("must be a duration such as 8h, 1h30m or 90s")
    try:
        return sum((int(number) * _UNITS[unit] for number, unit in _PART.findall(text)), timedelta())
    except OverflowError as error:
        raise ValueError("is too long a duration") from error
