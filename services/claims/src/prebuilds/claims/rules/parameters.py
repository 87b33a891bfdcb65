"""Which values a build gets, and which of the caller's it must not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prebuilds.domain.parameters import Matcher, Parameter, value_problem
from prebuilds.domain.refusals import Violation


def provided_problems(
    parameters: Sequence[Parameter], provided: Mapping[str, str], preset: Mapping[str, str], matches: Matcher
) -> Iterator[Violation]:
    """Tell what is wrong with the values given, beside a preset that fixes its own (behaviour section 6).

    1. Every name is a parameter of the version.
    2. Every value is one of its parameter.
    3. No value contradicts the preset's.
    4. Every parameter without a default has a value, the preset's or one given.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name, value in sorted(provided.items()):
        field = f"parameters.{name}"
        if name not in known:
            yield Violation(field, "the active version has no such parameter")
        elif problem := value_problem(known[name], value, matches):
            yield Violation(field, problem)
        elif preset.get(name, value) != value:
            yield Violation(field, f"the preset fixes it to {preset[name]!r}")
    for parameter in parameters:
        if parameter.default is None and parameter.name not in provided and parameter.name not in preset:
            yield Violation(f"parameters.{parameter.name}", "is required")


def immutable_choices(
    parameters: Sequence[Parameter], provided: Mapping[str, str], preset: Mapping[str, str]
) -> tuple[str, ...]:
    """Name the values given that a claimed prebuild cannot have: it was built with others and keeps them.

    Those of immutable parameters that the preset leaves to their default and that differ from it.
    """
    return tuple(
        parameter.name
        for parameter in parameters
        if not parameter.mutable
        and parameter.name not in preset
        and provided.get(parameter.name, parameter.default) != parameter.default
    )


def changed_problems(
    parameters: Sequence[Parameter], changes: Mapping[str, str], matches: Matcher
) -> Iterator[Violation]:
    """Tell what is wrong with changing these values of a workspace that exists: only mutable ones can be changed."""
    known = {parameter.name: parameter for parameter in parameters}
    for name, value in sorted(changes.items()):
        field = f"parameters.{name}"
        if name not in known:
            yield Violation(field, "the version has no such parameter")
        elif not known[name].mutable:
            yield Violation(field, "is immutable: it was fixed when the workspace was created")
        elif problem := value_problem(known[name], value, matches):
            yield Violation(field, problem)


def all_values(
    parameters: Sequence[Parameter], provided: Mapping[str, str], preset: Mapping[str, str]
) -> dict[str, str]:
    """Give every parameter of the version its value: the preset's, else the one given, else its default."""
    values = {parameter.name: parameter.default for parameter in parameters} | dict(provided) | dict(preset)
    return {name: value for name, value in values.items() if value is not None}
