"""The grammar of schedules, and their overlaps against a calendar."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilds.domain.cron import CronError
from prebuilds.reconciler.rules.cron import Cron, parse_range

DAYS = [date(2000, 1, 1) + timedelta(days=number) for number in range(366 * 28)]
"""28 years: every date, 29 February too, on every weekday."""


@pytest.mark.parametrize(
    "expression",
    ["* 9-18 * * 1-5", "* */2 * * *", "* 0-23/3 1,15 jan-mar mon,WED", "*  8  *  *  *", "* 8 * * 0-6", "* 5/6 * * *"],
)
def test_the_grammar_lets_these_through(expression: str) -> None:
    assert parse_range(expression).hours


@pytest.mark.parametrize(
    "expression",
    [
        "0 9-18 * * 1-5",
        "*/5 9 * * *",
        "* * * *",
        "* * * * * *",
        "@daily",
        "",
        "* 22-4 * * *",
        "* * * * 7",
        "* * * * 5-7",
        "* * L * *",
        "* * ? * *",
        "* * * * 5#1",
        "R * * * *",
        "* 24 * * *",
        "* -1 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * foo *",
        "* mon * * *",
        "* 1-2-3 * * *",
        "* 1, * * *",
        "* */0 * * *",
        "* ١ * * *",  # noqa: RUF001 - digits of another script
        "* * * sat-sun *",
        "* * * * sat-sun",
    ],
)
def test_the_grammar_refuses_these(expression: str) -> None:
    with pytest.raises(CronError):
        parse_range(expression)


def test_either_day_field_suffices_when_both_restrict() -> None:
    cron = parse_range("* 9 1 * 1")
    assert cron.holds_on(month=6, day=1, weekday=3)
    assert cron.holds_on(month=6, day=2, weekday=1)
    assert not cron.holds_on(month=6, day=2, weekday=3)


def test_a_full_range_restricts_all_the_same() -> None:
    # Only `*` itself leaves a day field out of it.
    assert parse_range("* 9 1 * 0-6").holds_on(month=6, day=2, weekday=3)
    assert not parse_range("* 9 1 * *").holds_on(month=6, day=2, weekday=3)


def test_the_thirtieth_of_february_overlaps_with_nothing() -> None:
    assert not parse_range("* * 30 2 *").overlaps(parse_range("* * * * *"))


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    values = st.integers(low, high)
    ranges = st.tuples(values, values).map(lambda pair: f"{min(pair)}-{max(pair)}")
    items = st.lists(st.one_of(values.map(str), ranges), min_size=1, max_size=2).map(",".join)
    return st.one_of(st.just("*"), items)


EXPRESSIONS = st.tuples(_field(0, 23), _field(1, 31), _field(1, 12), _field(0, 6)).map(
    lambda fields: f"* {' '.join(fields)}"
)


@settings(max_examples=40, deadline=None)
@given(EXPRESSIONS, EXPRESSIONS)
def test_overlap_is_what_a_calendar_says(first: str, second: str) -> None:
    one, other = parse_range(first), parse_range(second)
    expected = bool(one.hours & other.hours) and any(_holds(one, day) and _holds(other, day) for day in DAYS)
    assert one.overlaps(other) is expected
    assert other.overlaps(one) is expected


def _holds(cron: Cron, day: date) -> bool:
    return cron.holds_on(month=day.month, day=day.day, weekday=day.isoweekday() % 7)
