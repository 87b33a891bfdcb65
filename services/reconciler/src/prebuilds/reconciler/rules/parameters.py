"""Parameters of a version: which texts are a value of one (behaviour section 1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
MAX_VALUE_LENGTH: Final = 8192


class ParameterType(StrEnum):
    """Which texts are a value."""

    STRING = "string"
    NUMBER = "number"
    BOOL = "bool"


def problem_with(
    value: str,
    type_: ParameterType,
    *,
    options: Sequence[str] = (),
    regex: str = "",
    least: float | None = None,
    most: float | None = None,
    error: str = "",
) -> str | None:
    """Say what is wrong with a value, for people; None where it is good. The first that fails, in this order."""
    if len(value) > MAX_VALUE_LENGTH:
        return f"must have at most {MAX_VALUE_LENGTH:,} characters"
    match type_:
        case ParameterType.NUMBER if _NUMBER.fullmatch(value) is None:
            return "must be a decimal number, such as 4 or 0.5"
        case ParameterType.BOOL if value not in {"true", "false"}:
            return "must be true or false"
        case _:
            pass
    if options and value not in options:
        return f"must be one of: {', '.join(options)}"
    if regex and re.fullmatch(regex, value) is None:
        return error or f"must match {regex}"
    if least is not None and float(value) < least:
        return error or f"must be at least {least:g}"
    if most is not None and float(value) > most:
        return error or f"must be at most {most:g}"
    return None
