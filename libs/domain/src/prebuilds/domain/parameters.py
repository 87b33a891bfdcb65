"""Parameters of a version, and which texts are a value of one: the same at push and at creation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, Protocol

MAX_PARAMETERS: Final = 200
"""Of a version."""
MAX_VALUE: Final = 8192
"""Characters of a value."""

_NUMBER: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,6})?", re.ASCII)


class ParameterType(StrEnum):
    """Which texts are a value."""

    STRING = "string"
    NUMBER = "number"
    BOOL = "bool"


@dataclass(frozen=True, slots=True)
class ValueRules:
    """Further rules for values; all that are given must hold."""

    regex: str = ""
    """Matches the whole value; empty: none."""
    least: float | None = None
    most: float | None = None
    error: str = ""
    """What to tell a person whose value is refused; empty: a general sentence."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A named input of a version."""

    name: str
    type: ParameterType
    default: str | None
    """None: a value is required."""
    mutable: bool
    options: tuple[str, ...] = ()
    """The only values; empty: any."""
    rules: ValueRules = ValueRules()


class PatternError(ValueError):
    """A regular expression that cannot be used; the text says why, for people."""


class Matcher(Protocol):
    """Matches regular expressions in a time that is linear in the text, because strangers write them."""

    def __call__(self, regex: str, text: str) -> bool:
        """Whether all of the text matches; PatternError."""
        ...


def value_problem(parameter: Parameter, value: str, matches: Matcher) -> str | None:
    """Tell what is wrong with this value of a parameter, for people; None: nothing. The first that fails.

    1. It has at most 8,192 characters.
    2. A number has up to 15 digits and up to 6 behind the point; a bool is `true` or `false`.
    3. It is one of the options, if there are any.
    4. It matches the regular expression.
    5. It is not below min, nor above max.
    """
    if len(value) > MAX_VALUE:
        return f"must have at most {MAX_VALUE:,} characters"
    match parameter.type:
        case ParameterType.NUMBER if _NUMBER.fullmatch(value) is None:
            return "must be a decimal number such as 4 or 0.5: up to 15 digits, and up to 6 behind the point"
        case ParameterType.BOOL if value not in {"true", "false"}:
            return "must be true or false"
        case _:
            pass
    if parameter.options and value not in parameter.options:
        return f"must be one of: {', '.join(parameter.options)}"
    return _rules_problem(parameter, value, matches)


def _rules_problem(parameter: Parameter, value: str, matches: Matcher) -> str | None:
    rules = parameter.rules
    try:
        if rules.regex and not matches(rules.regex, value):
            return rules.error or f"must match {rules.regex}"
    except PatternError as error:
        return f"cannot be checked: the version's regular expression {error}"
    if parameter.type is ParameterType.NUMBER:
        # Exact: a float holds fewer digits than a value may have.
        if rules.least is not None and Decimal(value) < Decimal(str(rules.least)):
            return rules.error or f"must be at least {rules.least:.15g}"
        if rules.most is not None and Decimal(value) > Decimal(str(rules.most)):
            return rules.error or f"must be at most {rules.most:.15g}"
    return None
