"""Filters of lists: `field=value`, joined by ` AND `."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from prebuilds.domain.refusals import Refusal, Violation

FIELD: Final = "filter"
_JOINED_BY: Final = " AND "


def read_filter(text: str, fields: Collection[str]) -> dict[str, str]:
    """Read which value the filter wants of each field.

    Raises Refusal INVALID_FIELDS with everything that is wrong: a part without `=`, an unknown field, one named twice.
    """
    wanted: dict[str, str] = {}
    problems: list[str] = []
    for part in text.split(_JOINED_BY) if text.strip() else ():
        field, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            problems.append(f"{part.strip()!r} is not of the form field=value")
        elif field not in fields:
            problems.append(f"{field!r} is not one of: {', '.join(sorted(fields))}")
        elif field in wanted:
            problems.append(f"{field!r} is named twice")
        else:
            wanted[field] = value
    if problems:
        raise invalid_filter(*problems)
    return wanted


def invalid_filter(*problems: str) -> Refusal:
    """Refuse a filter for all that is wrong with it."""
    return Refusal.invalid(*(Violation(FIELD, problem) for problem in problems))
