"""Reading the fields of requests: all that is wrong with a request is gathered, and refused at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from prebuilds.domain.durations import LONGEST, written
from prebuilds.domain.names import MAX_NAME_LENGTH, is_name
from prebuilds.domain.refusals import Refusal, Violation

W = TypeVar("W", bound=StrEnum)

MAX_NAMED: Final = 200
"""Characters of a text that names something; what is there under it is shorter."""

_REQUEST_ID: Final = re.compile(r"[\x20-\x7e]{0,128}")
_FILTER: Final = "filter"
_MASK: Final = "update_mask"
_JOINED_BY: Final = " AND "
_CUT: Final = "..."
_SECOND: Final = 10**9  # nanoseconds
_NO_ID: Final = UUID(int=0)
_NO_TIME: Final = datetime.min.replace(tzinfo=UTC)


class Fields:
    """Reads the fields of one request; `done` refuses it where anything is wrong.

    Until then a field that is wrong reads as some value of its type, which nobody gets to see.
    """

    def __init__(self) -> None:
        """Nothing is wrong yet."""
        self._violations: list[Violation] = []

    def wrong(self, field: str, description: str) -> None:
        """Note that a field is wrong."""
        self._violations.append(Violation(field, description))

    def check(self, field: str, description: str, *, is_good: bool) -> None:
        """Note that a field is wrong unless all is well."""
        if not is_good:
            self.wrong(field, description)

    def done(self) -> None:
        """Raise Refusal INVALID_FIELDS with everything that is wrong."""
        if self._violations:
            raise Refusal.invalid(*self._violations)

    def required(self, field: str, text: str) -> str:
        """A name or id of something, which must be there."""
        self.check(field, "is required", is_good=bool(text))
        return self.optional(field, text)

    def optional(self, field: str, text: str) -> str:
        """A name or id of something, which may be left out; longer than any name it is not looked up."""
        self.check(field, f"must have at most {MAX_NAMED} characters", is_good=len(text) <= MAX_NAMED)
        return text

    def id(self, field: str, text: str) -> UUID:
        """An id that must be there."""
        try:
            return UUID(text)
        except ValueError:
            self.wrong(field, "must be a UUID" if text else "is required")
            return _NO_ID

    def name(self, field: str, text: str) -> str:
        """The name of something new."""
        if not is_name(text):
            self.wrong(
                field,
                f"must be 1 to {MAX_NAME_LENGTH} lower-case letters and digits, words joined by single hyphens, and no"
                " UUID"
                if text
                else "is required",
            )
        return text

    def at_most(self, field: str, text: str, length: int) -> str:
        """A text for people, at most `length` characters."""
        self.check(field, f"must have at most {length} characters", is_good=len(text) <= length)
        self.check(field, "must not contain a NUL character", is_good="\0" not in text)
        return text

    def request_id(self, text: str) -> str:
        """The request's own id, where it has one."""
        self.check(
            "request_id", "must be 1 to 128 printable ASCII characters", is_good=bool(_REQUEST_ID.fullmatch(text))
        )
        return text

    def duration(
        self, field: str, value: Duration, *, least: timedelta = timedelta(0), most: timedelta | None = None
    ) -> timedelta:
        """A length of time: zero, or `least` to `most`; None is no bound."""
        if not _is_duration(value):
            self.wrong(field, "is not a duration")
            return timedelta(0)
        length = value.ToTimedelta()
        if length and (length < least or (most is not None and length > most)):
            allowed = f"at least {written(least)}" if most is None else f"{written(least)} to {written(most)}"
            self.wrong(field, f"must be zero, or {allowed}" if least else f"must be {allowed}")
        return length

    def time(self, field: str, value: Timestamp) -> datetime:
        """A moment."""
        try:
            if 0 <= value.nanos < _SECOND:
                return value.ToDatetime(UTC)
        except (ValueError, OverflowError):
            pass
        self.wrong(field, "is no time between the years 1 and 9999")
        return _NO_TIME

    def mask(self, paths: Iterable[str], fields: Collection[str]) -> frozenset[str]:
        """The fields that an `update_mask` names, at least one of these; a message's name stands for all below it."""
        named: set[str] = set()
        empty = True
        for path in paths:
            empty = False
            meant = {field for field in fields if field == path or field.startswith(f"{path}.")}
            self.check(_MASK, f"{_shown(path)} is not one of: {', '.join(fields)}", is_good=bool(meant))
            named |= meant
        self.check(_MASK, f"must name at least one of: {', '.join(fields)}", is_good=not empty)
        return frozenset(named)

    def filter(self, text: str, fields: Collection[str]) -> Filter:
        """A list's filter: `field=value` joined by ` AND `, each of these fields at most once."""
        wanted: dict[str, str] = {}
        for part in text.split(_JOINED_BY) if text.strip() else ():
            field, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not value:
                self.wrong(_FILTER, f"{_shown(part.strip())} is not of the form field=value")
            elif field not in fields:
                self.wrong(_FILTER, f"{_shown(field)} is not one of: {', '.join(fields)}")
            elif field in wanted:
                self.wrong(_FILTER, f"{field!r} is named twice")
            else:
                wanted[field] = value
        return Filter(self, wanted)


class Filter:
    """The values that a filter wants, by field; what is wrong with them goes to the fields. None: not asked for."""

    def __init__(self, fields: Fields, wanted: dict[str, str]) -> None:
        """`Fields.filter` makes one."""
        self._fields = fields
        self.wanted: Final = wanted

    def text(self, field: str) -> str | None:
        """Any text."""
        return self.wanted.get(field)

    def word(self, field: str, words: type[W]) -> W | None:
        """One of these words."""
        value = self.wanted.get(field)
        if value is None:
            return None
        try:
            return words(value)
        except ValueError:
            self._fields.wrong(_FILTER, f"{field!r} must be one of: {', '.join(words)}")
            return None

    def truth(self, field: str) -> bool | None:
        """`true` or `false`."""
        value = self.wanted.get(field)
        self._fields.check(_FILTER, f"{field!r} must be true or false", is_good=value in {None, "true", "false"})
        return None if value is None else value == "true"

    def id(self, field: str) -> UUID | None:
        """An id."""
        value = self.wanted.get(field)
        if value is None:
            return None
        try:
            return UUID(value)
        except ValueError:
            self._fields.wrong(_FILTER, f"{field!r} must be a UUID")
            return None


def read_id(text: str) -> UUID:
    """Read a request that has nothing but the field `id`."""
    fields = Fields()
    id_ = fields.id("id", text)
    fields.done()
    return id_


def _shown(text: str) -> str:
    """Text of any length as it is told back: in quotes, only its beginning where it is longer than any name."""
    return repr(text if len(text) <= MAX_NAMED else f"{text[: MAX_NAMED - len(_CUT)]}{_CUT}")


def _is_duration(value: Duration) -> bool:
    """Whether both parts are within their bounds and of one sign, and the length is one that can be reckoned with."""
    agree = value.seconds * value.nanos >= 0
    return agree and abs(value.nanos) < _SECOND and abs(value.seconds) < LONGEST.total_seconds()
