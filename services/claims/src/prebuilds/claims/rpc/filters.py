"""Reading the values of filters."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from prebuilds.chassis.caller import current_caller
from prebuilds.claims.queries.naming import NOBODY, Named
from prebuilds.claims.rpc.fields import Fields
from prebuilds.claims.rules.filters import FIELD, read_filter
from prebuilds.domain.refusals import Refusal

W = TypeVar("W", bound=StrEnum)

_ME = "me"


class FilterValues:
    """A filter's values; what is wrong with them goes to the request's fields."""

    def __init__(self, fields: Fields, text: str, allowed: Collection[str]) -> None:
        """Read the filter's text."""
        self._fields = fields
        self._values: dict[str, str] = {}
        try:
            self._values = read_filter(text, allowed)
        except Refusal as refusal:
            for violation in refusal.violations:
                fields.problem(violation.field, violation.description)

    def text(self, field: str) -> str | None:
        """A text; None where the filter does not name the field."""
        return self._values.get(field)

    def word(self, field: str, words: type[W]) -> W | None:
        """One of these words."""
        value = self._values.get(field)
        if value is None:
            return None
        try:
            return words(value)
        except ValueError:
            self._fields.problem(FIELD, f"{field!r} must be one of: {', '.join(words)}")
            return None

    def boolean(self, field: str) -> bool | None:
        """`true` or `false`."""
        value = self._values.get(field)
        if value is not None and value not in {"true", "false"}:
            self._fields.problem(FIELD, f"{field!r} must be `true` or `false`")
        return None if value is None else value == "true"

    def id(self, field: str) -> UUID | None:
        """An id."""
        value = self._values.get(field)
        if value is None:
            return None
        try:
            return UUID(value)
        except ValueError:
            self._fields.problem(FIELD, f"{field!r} must be a UUID")
            return None

    def named(self, field: str) -> Named | None:
        """A name or id."""
        value = self._values.get(field)
        return None if value is None else Named.of(value)

    def person(self, field: str) -> Named:
        """A person by name or id, or `me`; nobody where the filter does not name the field."""
        value = self._values.get(field)
        if value == _ME:
            return Named.of(str(current_caller().person().user_id))
        return NOBODY if value is None else Named.of(value)
