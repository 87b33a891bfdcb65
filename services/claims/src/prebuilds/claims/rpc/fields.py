"""Reading the fields of requests: everything that is wrong with one is told at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from prebuilds.claims.queries.naming import NOBODY, Named
from prebuilds.claims.rules.autostart import autostart_problem
from prebuilds.domain.names import MAX_NAME_LENGTH, is_name
from prebuilds.domain.refusals import Refusal, Violation

MAX_PARAMETERS: Final = 100
MIN_TTL: Final = timedelta(minutes=1)
MAX_TTL: Final = timedelta(days=30)

_REQUEST_ID: Final = re.compile(r"[\x20-\x7e]{0,128}")
_NO_ID: Final = UUID(int=0)


class Fields:
    """Reads fields and collects what is wrong with them; `done` refuses all of it."""

    def __init__(self) -> None:
        """Nothing is wrong at first."""
        self._problems: list[Violation] = []

    def done(self) -> None:
        """Raise Refusal INVALID_FIELDS for all problems, if there are any."""
        if self._problems:
            raise Refusal.invalid(*self._problems)

    def problem(self, field: str, description: str) -> None:
        """Note that something is wrong."""
        self._problems.append(Violation(field, description))

    def id(self, field: str, text: str) -> UUID:
        """A required id."""
        try:
            return UUID(text)
        except ValueError:
            self.problem(field, "must be a UUID" if text else "is required")
            return _NO_ID

    def named(self, field: str, text: str) -> Named:
        """A required name or id."""
        if not text:
            self.problem(field, "is required")
            return NOBODY
        return Named.of(text)

    def request_id(self, text: str) -> str:
        """An optional id of the request."""
        if _REQUEST_ID.fullmatch(text) is None:
            self.problem("request_id", "must be 1 to 128 printable ASCII characters")
        return text

    def workspace_name(self, text: str) -> str:
        """An optional name for a workspace."""
        if text and not is_name(text):
            self.problem(
                "name",
                f"must be 1 to {MAX_NAME_LENGTH} characters: words of lower-case letters and digits joined by hyphens",
            )
        return text

    def parameters(self, values: Mapping[str, str]) -> dict[str, str]:
        """Values by parameter name; which there are is decided later."""
        if len(values) > MAX_PARAMETERS:
            self.problem("parameters", f"must be at most {MAX_PARAMETERS}")
        return dict(values)

    def ttl(self, message: Duration | None) -> timedelta | None:
        """An optional time to run; zero is for ever."""
        if message is None:
            return None
        try:
            ttl = message.ToTimedelta()
        except (ValueError, OverflowError):
            self.problem("ttl", "is not a duration")
            return None
        if ttl and not MIN_TTL <= ttl <= MAX_TTL:
            self.problem("ttl", "must be zero, or 1 minute to 30 days")
        return ttl

    def autostart(self, text: str | None) -> str | None:
        """An optional schedule; empty is never."""
        problem = None if text is None else autostart_problem(text)
        if problem is not None:
            self.problem("autostart_schedule", problem)
        return text

    def page_size(self, size: int) -> int:
        """How many things a page shall have; 0 is the default."""
        if size < 0:
            self.problem("page_size", "must not be negative")
        return size
