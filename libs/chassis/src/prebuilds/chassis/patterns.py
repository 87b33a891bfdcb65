"""Regular expressions that strangers write, by RE2: linear in the text, where Python's own can take for ever.

Needs the extra `patterns` of this member.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, Final, cast

import re2 as _untyped  # pyright: ignore[reportMissingTypeStubs] - it has none

from prebuilds.domain.parameters import PatternError

_RE2: Final[Any] = _untyped
MAX_LENGTH: Final = 1000
"""Characters of a regular expression."""
_MAX_MEMORY: Final = 128 * 1024
"""Bytes of a compiled one: bounds the work for each character, too."""


def matches(regex: str, text: str) -> bool:
    """Whether all of the text matches; PatternError for what is no regular expression in RE2's syntax."""
    return _compiled(regex).fullmatch(text) is not None


@lru_cache(maxsize=256)
def _compiled(regex: str) -> Any:  # noqa: ANN401 - re2 has no types
    if len(regex) > MAX_LENGTH:
        raise PatternError(f"must have at most {MAX_LENGTH:,} characters")
    try:
        return _RE2.compile(regex, _options())
    except _RE2.error as error:
        said: object = next(iter(cast("Exception", error).args), "")
        reason = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise PatternError(f"is not a regular expression in RE2's syntax: {reason}") from error


@cache
def _options() -> Any:  # noqa: ANN401 - as above
    options = _RE2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    return options
