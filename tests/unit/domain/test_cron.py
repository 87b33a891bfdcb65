"""The grammar of cron expressions, and of autostart schedules."""

from __future__ import annotations

from contextlib import suppress

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilds.domain.cron import BOUNDS, CronError, autostart_problem, check_grammar, is_zone


@pytest.mark.parametrize(
    "text", ["", "0 8 * * 1-5", "CRON_TZ=Europe/Berlin 30 8 * * mon-fri", "*/15 0,12 1-31/2 jan *", "0  8 * * *"]
)
def test_an_autostart_schedule_is_accepted(text: str) -> None:
    assert autostart_problem(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "* * * *",
        "60 8 * * *",
        "0 8 * * 7",
        "0 5-2 * * *",
        "CRON_TZ=Mars/Base 0 8 * * *",
        "CRON_TZ=localtime 0 8 * * *",
        "CRON_TZ=Europe/Berlin",
        "@daily",
        "0 8 * * */0",
        "٣ 8 * * *",
        "0 8 * * *\n",
        "0\u20038 * * *",
        f"0 {'1' * 5000} * * *",
        f"0 8 * * */{'1' * 5000}",
        "0 8 * * " + "1," * 40_000 + "1",
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_a_bad_autostart_schedule_is_refused(text: str) -> None:
    assert autostart_problem(text)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5"])
def test_iana_zones_are_known(name: str) -> None:
    assert is_zone(name)


@pytest.mark.parametrize(
    "name",
    ["", "localtime", "posixrules", "right/Europe/Berlin", "posix/UTC", "../../etc/passwd", "Europe", "tzdata.zi"],
)
def test_what_else_lies_in_a_folder_of_zones_is_none(name: str) -> None:
    assert not is_zone(name)


def _item(low: int, high: int) -> st.SearchStrategy[str]:
    bounds = st.lists(st.integers(low, high), min_size=1, max_size=2).map(sorted)
    first = st.one_of(st.just("*"), bounds.map(lambda pair: "-".join(map(str, pair))))
    return st.tuples(first, st.sampled_from(["", "/1", "/7", "/100"])).map("".join)


FIELDS = [st.lists(_item(*bounds), min_size=1, max_size=3).map(",".join) for bounds in BOUNDS.values()]


@settings(deadline=None)
@given(st.tuples(*FIELDS).map(" ".join))
def test_what_the_grammar_knows_croniter_can_follow(expression: str) -> None:
    check_grammar(expression)
    assert croniter.is_valid(expression)


@given(st.text())
def test_no_text_fails_in_another_way(text: str) -> None:
    autostart_problem(text)
    autostart_problem(f"CRON_TZ={text}")
    with suppress(CronError):
        check_grammar(text)
