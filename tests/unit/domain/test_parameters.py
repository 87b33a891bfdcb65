"""Which texts are a value of a parameter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilds.chassis.patterns import matches
from prebuilds.domain.parameters import Parameter, ParameterType, ValueRules, value_problem

TEXT = Parameter("size", ParameterType.STRING, None, mutable=False)
NUMBER = replace(TEXT, type=ParameterType.NUMBER)
BOUNDED = replace(NUMBER, rules=ValueRules(least=-0.5, most=999_999_999_999_999))


@pytest.mark.parametrize(
    "parameter, good, bad",
    [
        (TEXT, "x" * 8192, "x" * 8193),
        (replace(TEXT, options=("small", "large")), "large", "huge"),
        (replace(TEXT, type=ParameterType.BOOL), "true", "True"),
        (NUMBER, "-0.5", "NaN"),
        (NUMBER, "4", "4e2"),
        (NUMBER, "4", "+4"),
        (NUMBER, "4", "4."),
        (NUMBER, "4", "٤"),
        (NUMBER, "9" * 15, "9" * 16),
        (NUMBER, "0.123456", "0.1234567"),
        (BOUNDED, "-0.5", "-0.500001"),
        # A float could not tell these apart.
        (BOUNDED, "999999999999999", "999999999999999.000001"),
        (replace(TEXT, rules=ValueRules(regex="[a-z]+")), "abc", "abc1"),
        (replace(TEXT, rules=ValueRules(regex="a|b")), "b", "b\n"),
    ],
)
def test_values_are_of_their_parameter(parameter: Parameter, good: str, bad: str) -> None:
    assert value_problem(parameter, good, matches) is None
    assert value_problem(parameter, bad, matches)


def test_a_rule_can_have_its_own_words() -> None:
    parameter = replace(TEXT, rules=ValueRules(regex="[a-z]+", error="lower case, please"))
    assert value_problem(parameter, "X", matches) == "lower case, please"


def test_a_pattern_that_cannot_be_used_lets_nothing_through() -> None:
    assert "cannot be checked" in (value_problem(replace(TEXT, rules=ValueRules(regex="(?=a)")), "a", matches) or "")


@given(st.text(), st.sampled_from([TEXT, NUMBER, BOUNDED]))
def test_no_text_fails_in_another_way(text: str, parameter: Parameter) -> None:
    value_problem(parameter, text, matches)
