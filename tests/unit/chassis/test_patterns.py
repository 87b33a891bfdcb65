"""Regular expressions of strangers."""

from __future__ import annotations

import pytest

from prebuilds.chassis.patterns import matches
from prebuilds.domain.parameters import PatternError


def test_all_of_the_text_must_match() -> None:
    assert matches("[a-z]+", "abc")
    assert not matches("[a-z]+", "abc1")
    assert matches("ü.", "üß")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("regex", ["(a+)+$", "(a|a)*b", "(?:a?){200}a{200}", "(.*a.{15}){3}", "(x+x+)+y"])
def test_no_pattern_takes_for_ever(regex: str) -> None:
    matches(regex, "a" * 8000 + "!")


@pytest.mark.parametrize("regex", ["(", "[", "(?=a)", r"(a)\1", r"\Z", "x{1001}", r"\pL{200}", "a" * 1001])
def test_what_cannot_be_used_is_told(regex: str) -> None:
    with pytest.raises(PatternError):
        matches(regex, "")
