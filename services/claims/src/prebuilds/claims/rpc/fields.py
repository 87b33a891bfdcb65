"""Reading what is particular to requests about workspaces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from prebuilds.chassis.caller import current_caller
from prebuilds.chassis.fields import Fields, Filter
from prebuilds.claims.queries.naming import NOBODY, Named
from prebuilds.domain.cron import autostart_problem
from prebuilds.domain.parameters import MAX_PARAMETERS

MIN_TTL: Final = timedelta(minutes=1)
MAX_TTL: Final = timedelta(days=30)

_ME: Final = "me"


class WorkspaceFields(Fields):
    """Reads the fields of one request about workspaces."""

    def named(self, field: str, text: str) -> Named:
        """A required name or id."""
        return Named.of(self.required(field, text))

    def named_at_will(self, field: str, text: str) -> Named | None:
        """A name or id; None where it was left out."""
        return Named.of(self.optional(field, text)) if text else None

    def parameters(self, values: Mapping[str, str]) -> dict[str, str]:
        """Values by parameter name; which there are is decided later."""
        self.check("parameters", f"must be at most {MAX_PARAMETERS}", is_good=len(values) <= MAX_PARAMETERS)
        return dict(values)

    def ttl(self, message: Duration | None) -> timedelta | None:
        """An optional time to run; zero is for ever."""
        return None if message is None else self.duration("ttl", message, least=MIN_TTL, most=MAX_TTL)

    def autostart(self, text: str | None) -> str | None:
        """An optional schedule; empty is never."""
        problem = None if text is None else autostart_problem(text)
        if problem is not None:
            self.wrong("autostart_schedule", problem)
        return text


def named_by(wanted: Filter, field: str) -> Named:
    """A name or id; names nothing where the filter does not name the field."""
    value = wanted.text(field)
    return NOBODY if value is None else Named.of(value)


def person_by(wanted: Filter, field: str) -> Named:
    """A person by name or id, or `me`; nobody where the filter does not name the field."""
    if wanted.text(field) == _ME:
        return Named.of(str(current_caller().person().user_id))
    return named_by(wanted, field)
