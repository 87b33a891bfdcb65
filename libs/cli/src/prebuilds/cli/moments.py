"""Moments as people type and read them, in the time zone of a pool."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp

_AHEAD: Final = re.compile(r"([+-])(?=\d)(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?")
_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class MomentError(ValueError):
    """The text is no moment; its own text says why."""


def zone_of(name: str) -> ZoneInfo:
    """The IANA zone of that name; UTC where none is named or known: then the server has said what is wrong."""
    try:
        return ZoneInfo(name or "UTC")
    except (ValueError, OSError, KeyError):  # malformed, a folder of the database, unknown
        return ZoneInfo("UTC")


def read_moment(text: str, zone: ZoneInfo, now: datetime) -> datetime:
    """Read `2026-12-24 09:00`, `2026-12-24`, `09:00` (today), all in the zone unless with an offset; or `+2h30m`.

    Of a time that clocks show twice the first is meant. Raises MomentError for a time that they skip, and for anything
    else.
    """
    text = text.strip()
    ahead = _AHEAD.fullmatch(text)
    if ahead is not None:
        days, hours, minutes = (int(number or 0) for number in ahead.groups()[1:])
        length = timedelta(days=days, hours=hours, minutes=minutes)
        return now + (length if ahead[1] == "+" else -length)
    local = _read_local(text, zone, now)
    try:
        moment = (local if local.tzinfo is not None else local.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise MomentError(f"{text!r} is too far away") from None
    if local.tzinfo is not None:
        return moment
    if moment.astimezone(zone).replace(tzinfo=None) != local:
        raise MomentError(f"{text!r} does not exist in {zone.key}: clocks are put forward over it")
    return moment


def clock_text(moment: datetime, zone: ZoneInfo, *, seconds: bool = False) -> str:
    """Write a moment in a zone: `Thu 2026-12-24 09:00 Europe/Berlin (+01:00)`."""
    local = moment.astimezone(zone)
    shown = local.strftime("%a %Y-%m-%d %H:%M:%S" if seconds else "%a %Y-%m-%d %H:%M")
    if zone.key == "UTC":
        return f"{shown} UTC"
    return f"{shown} {zone.key} ({local.isoformat()[-6:]})"


def span(length: timedelta) -> str:
    """Write a length of time by its two largest units: `2h13m`, `40s`; nothing below a second."""
    seconds = max(int(length.total_seconds()), 0)
    parts: list[str] = []
    for unit, size in _UNITS:
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number}{unit}")
        elif parts:
            break
        if len(parts) == 2:  # noqa: PLR2004 - as the docstring says
            break
    return "".join(parts) or "0s"


def time_of(timestamp: Timestamp) -> datetime:
    """A message's moment."""
    return timestamp.ToDatetime(UTC)


def timestamp_of(moment: datetime) -> Timestamp:
    """A moment for a message."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment.astimezone(UTC))
    return timestamp


def _read_local(text: str, zone: ZoneInfo, now: datetime) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.combine(now.astimezone(zone).date(), time.fromisoformat(text))
    except ValueError:
        raise MomentError(
            f"{text!r} is no moment such as '2026-12-24 09:00', '2026-12-24 09:00+01:00', '09:00' or '+2h30m'"
        ) from None
