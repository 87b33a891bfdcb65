from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from prebuilds.cli.moments import MomentError, clock_text, read_moment, span, zone_of

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 7, 31, 22, 30, tzinfo=UTC)  # after midnight in Berlin


@pytest.mark.parametrize(
    "text, moment",
    [
        ("2026-12-24 09:00", datetime(2026, 12, 24, 8, tzinfo=UTC)),
        ("2026-07-01T09:00:30", datetime(2026, 7, 1, 7, 0, 30, tzinfo=UTC)),
        ("2026-12-24", datetime(2026, 12, 23, 23, tzinfo=UTC)),
        ("2026-12-24 09:00-05:00", datetime(2026, 12, 24, 14, tzinfo=UTC)),
        ("2026-12-24T09:00Z", datetime(2026, 12, 24, 9, tzinfo=UTC)),
        ("09:00", datetime(2026, 8, 1, 7, tzinfo=UTC)),
        ("+2h30m", NOW + timedelta(hours=2, minutes=30)),
        ("+1d", NOW + timedelta(days=1)),
        ("-90m", NOW - timedelta(minutes=90)),
    ],
)
def test_a_moment_is_read_in_the_zone_unless_it_has_an_offset(text: str, moment: datetime) -> None:
    assert read_moment(text, BERLIN, NOW) == moment


def test_of_a_time_that_clocks_show_twice_the_first_is_meant() -> None:
    assert read_moment("2026-10-25 02:30", BERLIN, NOW) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_a_time_that_clocks_skip_is_refused() -> None:
    with pytest.raises(MomentError, match="does not exist in Europe/Berlin"):
        read_moment("2026-03-29 02:30", BERLIN, NOW)


FAR = ("0001-01-01T00:00+05:00", "9999-12-31T23:00-05:00")


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2h", "+", "+h", "2026-13-01", "25:00", "+1w", "+99999999999m", "0001-01-01", *FAR]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(MomentError):
        read_moment(text, BERLIN, NOW)


@pytest.mark.parametrize("text", ["+9999d", "0002-01-01", "9999-12-31 23:59"])
def test_a_moment_far_away_is_left_to_the_server(text: str) -> None:
    read_moment(text, BERLIN, NOW)


@pytest.mark.parametrize("name", ["", "No/Such", "../etc/passwd", "Europe", "\0"])
def test_an_unknown_zone_is_utc(name: str) -> None:
    assert zone_of(name).key == "UTC"


def test_a_moment_is_written_with_its_zone_and_offset() -> None:
    assert clock_text(NOW, BERLIN) == "Sat 2026-08-01 00:30 Europe/Berlin (+02:00)"
    assert clock_text(NOW, zone_of(""), seconds=True) == "Fri 2026-07-31 22:30:00 UTC"


@pytest.mark.parametrize(
    "seconds, text",
    [
        *((0, "0s"), (0.9, "0s"), (59, "59s"), (60, "1m"), (3599, "59m59s"), (7200 + 13 * 60 + 5, "2h13m")),
        *((86400, "1d"), (86400 + 59, "1d"), (3 * 86400 + 4 * 3600, "3d4h"), (-5, "0s")),
    ],
)
def test_a_length_is_written_by_its_two_largest_units(seconds: float, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text
