"""Lengths of time as people write them: `30d`, `1h30m`, `90s`."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

LONGEST: Final = timedelta(days=10**6)
"""What Postgres can add to the present."""

_UNITS: Final = (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("m", timedelta(minutes=1)))


def written(length: timedelta) -> str:
    """Write a length of time, zero or more."""
    parts: list[str] = []
    for unit, size in _UNITS:
        number, length = divmod(length, size)
        if number:
            parts.append(f"{number}{unit}")
    if length or not parts:
        parts.append(f"{length.total_seconds():g}s")
    return "".join(parts)
