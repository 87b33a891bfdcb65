"""Edges of ranges, daylight saving, and the next change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilds.reconciler.rules.schedule import Schedule, ScheduleError, Timetable, compile_timetable
from prebuilds.reconciler.rules.target import NextChange, TargetSource, compile_wish, next_change_after, target_at
from tests.unit.reconciler.test_cron import EXPRESSIONS

MINUTE = timedelta(minutes=1)


def timetable(zone: str, *crons: str) -> Timetable:
    return compile_timetable(zone, [Schedule(cron, 5) for cron in crons])


def change_after(table: Timetable, now: datetime) -> datetime:
    change = table.next_change(now)
    assert change is not None
    return change


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "moment, holds",
    [
        ("2025-06-02 06:59:59.999999", False),
        ("2025-06-02 07:00:00", True),
        ("2025-06-02 16:59:59.999999", True),
        ("2025-06-02 17:00:00", False),
    ],
)
def test_a_range_holds_from_its_first_to_its_last_microsecond(moment: str, holds: bool) -> None:
    assert (timetable("Europe/Berlin", "* 9-18 * * *").index_at(utc(moment)) == 0) is holds


def test_an_hour_that_is_skipped_in_spring_does_not_happen() -> None:
    table = timetable("Europe/Berlin", "* 2 * * *")
    # 30 March 2025: 01:59:59 is followed by 03:00:00.
    assert table.next_change(utc("2025-03-29 12:00")) == utc("2025-03-31 00:00")
    assert table.index_at(utc("2025-03-30 01:00")) is None


def test_a_range_over_the_skipped_hour_is_an_hour_shorter() -> None:
    table = timetable("Europe/Berlin", "* 1-3 * * *")
    begin = change_after(table, utc("2025-03-29 12:00"))
    assert begin == utc("2025-03-30 00:00")
    assert table.next_change(begin) == utc("2025-03-30 02:00")


def test_a_range_that_begins_in_the_skipped_hour_begins_at_the_switch() -> None:
    table = timetable("Europe/Berlin", "* 2-3 * * *")
    begin = change_after(table, utc("2025-03-29 12:00"))
    assert begin == utc("2025-03-30 01:00")
    assert table.next_change(begin) == utc("2025-03-30 02:00")


def test_an_hour_that_happens_twice_in_autumn_holds_twice() -> None:
    table = timetable("Europe/Berlin", "* 2 * * *")
    begin = change_after(table, utc("2025-10-25 12:00"))
    # 26 October 2025: 02:59:59 is followed by 02:00:00 once.
    assert begin == utc("2025-10-26 00:00")
    assert table.next_change(begin) == utc("2025-10-26 02:00")


def test_a_zone_with_a_switch_of_half_an_hour() -> None:
    table = timetable("Australia/Lord_Howe", "* 2 * * *")
    # 5 October 2025: 01:59:59 is followed by 02:30:00.
    begin = change_after(table, utc("2025-10-04 12:00"))
    assert begin == utc("2025-10-04 15:30")
    assert table.next_change(begin) == utc("2025-10-04 16:00")


def test_the_next_leap_day_is_found() -> None:
    assert timetable("UTC", "* * 29 2 *").next_change(utc("2096-03-01 00:00")) == utc("2104-02-29 00:00")


def test_what_always_or_never_holds_never_changes() -> None:
    assert timetable("UTC", "* * * * *").next_change(utc("2025-06-02 00:00")) is None
    assert timetable("UTC", "* * 30 2 *").next_change(utc("2025-06-02 00:00")) is None


@settings(max_examples=40, deadline=None)
@given(
    EXPRESSIONS,
    st.sampled_from(["UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2026, 12, 31)),  # noqa: DTZ001 - made aware below
)
def test_nothing_changes_before_the_next_change(expression: str, zone: str, naive: datetime) -> None:
    table, now = timetable(zone, expression), naive.replace(tzinfo=UTC)
    present, change = table.index_at(now), table.next_change(now)
    end = min(change or now + timedelta(days=3), now + timedelta(days=3))
    moment = now.replace(second=0, microsecond=0) + MINUTE
    while moment < end:
        assert table.index_at(moment) == present
        moment += MINUTE
    if change is not None:
        assert table.index_at(change - timedelta(microseconds=1)) == present
        assert table.index_at(change) != present


@pytest.mark.parametrize("zone", ["", "Nowhere", "Europe", "../etc", "/etc/localtime", "UTC/../UTC", "a\0b"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ScheduleError):
        timetable(zone, "* * * * *")


def test_a_target_tells_where_it_comes_from_and_what_follows() -> None:
    wish = compile_wish(1, "Europe/Berlin", [Schedule("* 8-18 * * 1-5", 5)])
    monday = utc("2025-06-02 10:00")

    target = target_at(wish, monday, is_active=True)

    assert (target.instances, target.source, target.schedule_index) == (5, TargetSource.SCHEDULE, 0)
    assert next_change_after(wish, monday, is_active=True) == NextChange(utc("2025-06-02 17:00"), 1)
    assert target_at(wish, monday, is_active=False).source is TargetSource.INACTIVE
    assert next_change_after(wish, monday, is_active=False) is None


def test_a_change_of_source_with_the_same_number_is_no_change() -> None:
    wish = compile_wish(0, "UTC", [Schedule("* 2 * * *", 1), Schedule("* 3 * * *", 1), Schedule("* 5 * * *", 0)])

    def following(text: str) -> NextChange | None:
        return next_change_after(wish, utc(text), is_active=True)

    assert following("2025-06-02 02:30") == NextChange(utc("2025-06-02 04:00"), 0)
    assert following("2025-06-02 03:30") == NextChange(utc("2025-06-02 04:00"), 0)
    assert following("2025-06-02 04:30") == NextChange(utc("2025-06-03 02:00"), 1)


def test_presets_that_share_a_timetable_each_have_their_own_next_change() -> None:
    schedules, night = [Schedule("* 8-18 * * *", 5)], utc("2025-06-02 00:00")
    few, as_many = compile_wish(1, "UTC", schedules), compile_wish(5, "UTC", schedules)

    for _ in range(2):
        assert next_change_after(few, night, is_active=True) == NextChange(utc("2025-06-02 08:00"), 5)
        assert next_change_after(as_many, night, is_active=True) is None


@pytest.mark.parametrize("outside", [3, 4])
def test_a_number_that_schedules_share_all_day_never_changes(outside: int) -> None:
    wish = compile_wish(outside, "Europe/Berlin", [Schedule("* 0-11 * * *", 3), Schedule("* 12-23 * * *", 3)])

    assert next_change_after(wish, utc("2025-06-02 00:00"), is_active=True) is None
