"""Reading requests into values: all that is wrong with a request is gathered and refused at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeVar
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from prebuilds.domain.names import is_name
from prebuilds.domain.refusals import Refusal, Violation

E = TypeVar("E", bound=StrEnum)

_REQUEST_ID: Final = re.compile(r"[\x20-\x7e]{0,128}")
_CONDITION: Final = re.compile(r"\s*([a-z_]+)\s*=\s*(\S(?:.*\S)?)\s*")
_NOWHERE: Final = UUID(int=0)

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 500


class Reading:
    """What is wrong with one request; `done` refuses it where anything is."""

    def __init__(self) -> None:
        """Nothing is wrong yet."""
        self._violations: list[Violation] = []

    def wrong(self, field: str, description: str) -> None:
        """Note that a field is wrong."""
        self._violations.append(Violation(field, description))

    def done(self) -> None:
        """Raise Refusal INVALID_FIELDS with everything that is wrong."""
        if self._violations:
            raise Refusal.invalid(*self._violations)

    def required(self, field: str, text: str) -> str:
        """A text that must be there."""
        if not text:
            self.wrong(field, "is required")
        return text

    def id(self, field: str, text: str) -> UUID:
        """An id that must be there."""
        try:
            return UUID(text)
        except ValueError:
            self.wrong(field, "must be a UUID" if text else "is required")
            return _NOWHERE

    def name(self, field: str, text: str) -> str:
        """The name of something new."""
        if not is_name(text) or _is_uuid(text):
            self.wrong(
                field,
                "must be 1 to 63 lower-case letters and digits, words joined by single hyphens, and no UUID"
                if text
                else "is required",
            )
        return text

    def at_most(self, field: str, text: str, length: int) -> str:
        """A text for people."""
        if len(text) > length:
            self.wrong(field, f"must have at most {length} characters")
        if "\0" in text:
            self.wrong(field, "must not contain a NUL character")
        return text

    def request_id(self, text: str) -> str:
        """The request's own id."""
        if _REQUEST_ID.fullmatch(text) is None:
            self.wrong("request_id", "must be 1 to 128 printable ASCII characters")
        return text

    def duration(
        self, field: str, value: Duration, *, least: timedelta, most: timedelta | None = None
    ) -> timedelta | None:
        """A length of time; None where it is zero."""
        length = (
            timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
            if abs(value.seconds) < _MAX_SECONDS
            else timedelta.max
        )
        if length == timedelta(0):
            return None
        if length < least or (most is not None and length > most) or length == timedelta.max:
            self.wrong(field, f"must be zero or at least {least}" + (f" and at most {most}" if most else ""))
        return length

    def page_size(self, size: int) -> int:
        """How many things one answer has."""
        if size < 0:
            self.wrong("page_size", "must not be negative")
        return min(size, MAX_PAGE) if size > 0 else DEFAULT_PAGE

    def filter(self, text: str, *fields: str) -> dict[str, str]:
        """The conditions of a filter, by field."""
        found: dict[str, str] = {}
        for part in text.split(" AND ") if text.strip() else ():
            match = _CONDITION.fullmatch(part)
            if match is None:
                self.wrong("filter", f"{part!r} is not of the form field=value")
            elif match[1] not in fields:
                self.wrong("filter", f"{match[1]!r} is not one of: {', '.join(fields)}")
            elif match[1] in found:
                self.wrong("filter", f"{match[1]!r} is there twice")
            else:
                found[match[1]] = match[2]
        return found

    def truth(self, conditions: dict[str, str], field: str) -> bool | None:
        """A condition of `true` or `false`; None where it is not asked for."""
        value = conditions.get(field)
        if value not in {None, "true", "false"}:
            self.wrong("filter", f"{field} must be true or false")
        return None if value is None else value == "true"

    def word(self, conditions: dict[str, str], field: str, words: type[E]) -> E | None:
        """A condition that is one of some words; None where it is not asked for."""
        value = conditions.get(field)
        if value is None:
            return None
        try:
            return words(value)
        except ValueError:
            self.wrong("filter", f"{field} must be one of: {', '.join(words)}")
            return None

    def each(self, field: str, texts: Iterable[str], check: Callable[[str, str], object]) -> None:
        """Check each item of a list."""
        for index, text in enumerate(texts):
            check(f"{field}[{index}]", text)


_MAX_SECONDS: Final = 10**11


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
