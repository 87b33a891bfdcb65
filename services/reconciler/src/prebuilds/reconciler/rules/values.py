"""The values that a preset's prebuilds are built with, and what may be wrong with them (behaviour section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prebuilds.domain.parameters import Matcher, Parameter, value_problem


@dataclass(frozen=True, slots=True)
class PresetValue:
    """A parameter and its value."""

    parameter: Parameter | str
    """Only its name where the version has none of this name."""
    value: str | None
    """The preset's, else the default; None where there is neither."""


def problems_of(values: Sequence[PresetValue], matches: Matcher) -> Iterator[str]:
    """Tell, for people, what keeps builds with these values from being queued; values themselves are not told.

    A push lets none of it through, so this is of stored data that should not exist.
    """
    for each in values:
        if isinstance(each.parameter, str):
            yield f"the version has no parameter {each.parameter!r}"
        elif each.value is None:
            yield f"parameter {each.parameter.name!r} is required and has no value"
        elif problem := value_problem(each.parameter, each.value, matches):
            yield f"parameter {each.parameter.name!r} {problem}"


def values_of(values: Sequence[PresetValue]) -> dict[str, str]:
    """The parameters of a build."""
    return {
        each.parameter.name: each.value
        for each in values
        if isinstance(each.parameter, Parameter) and each.value is not None
    }
