"""How callers name things: by id or by name."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Named:
    """A thing as the caller named it: a text that reads as a UUID is an id, any other a name; one of the two is set."""

    text: str
    id: UUID | None
    name: str | None

    @classmethod
    def of(cls, text: str) -> Named:
        """Read the text."""
        try:
            return cls(text, UUID(text), None)
        except ValueError:
            return cls(text, None, text)


NOBODY = Named("", None, None)
"""Names nothing."""
