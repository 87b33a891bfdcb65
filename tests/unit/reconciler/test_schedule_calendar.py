"""Schedules against brute force: a calendar gone through minute by minute, which shares no code with the rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prebuilds.domain.cron import CronError
from prebuilds.reconciler.rules.cron import Cron, parse_range
from prebuilds.reconciler.rules.schedule import Schedule, ScheduleError, Timetable, compile_timetable, overlapping

MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
]
SWITCHES = [
    # zone, the local day, and how many hours it has
    ("Europe/Berlin", date(2025, 3, 30), 23.0),
    ("Europe/Berlin", date(2025, 10, 26), 25.0),
    ("America/New_York", date(2025, 3, 9), 23.0),
    ("America/New_York", date(2025, 11, 2), 25.0),
    ("Australia/Lord_Howe", date(2025, 10, 5), 23.5),
    ("Australia/Lord_Howe", date(2025, 4, 6), 24.5),
    # Midnight itself is skipped, and happens twice.
    ("America/Santiago", date(2025, 9, 7), 23.0),
    ("America/Santiago", date(2025, 4, 5), 25.0),
]
LEAP_DAYS = [date(2024, 2, 29), date(2028, 2, 29), date(2096, 2, 29), date(2104, 2, 29)]
CALENDAR = [date(2000, 1, 1) + timedelta(days=number) for number in range(366 * 28)]
"""28 years: every date, 29 February too, on every weekday."""


@dataclass(frozen=True)
class Drawn:
    """An expression beside what it was made of; None is `*`."""

    hours: frozenset[int] | None
    days: frozenset[int] | None
    months: frozenset[int] | None
    weekdays: frozenset[int] | None

    @property
    def text(self) -> str:
        fields = (self.hours, self.days, self.months, self.weekdays)
        return " ".join(["*", *("*" if field is None else ",".join(map(str, sorted(field))) for field in fields)])

    def holds(self, local: datetime) -> bool:
        return (self.hours is None or local.hour in self.hours) and self.holds_on(local.date())

    def holds_on(self, day: date) -> bool:
        if self.months is not None and day.month not in self.months:
            return False
        weekday = (day.weekday() + 1) % 7
        if self.days is not None and self.weekdays is not None:
            return day.day in self.days or weekday in self.weekdays
        return (self.days is None or day.day in self.days) and (self.weekdays is None or weekday in self.weekdays)


def values(low: int, high: int) -> st.SearchStrategy[frozenset[int] | None]:
    return st.one_of(st.none(), st.frozensets(st.integers(low, high), min_size=1, max_size=4))


DRAWN = st.builds(Drawn, values(0, 23), values(1, 31), values(1, 12), values(0, 6))


def compiled(zone: str, crons: Sequence[Drawn]) -> Timetable:
    return compile_timetable(zone, [Schedule(cron.text, position) for position, cron in enumerate(crons)])


def expected_index(crons: Sequence[Drawn], moment: datetime, zone: ZoneInfo) -> int | None:
    local = moment.astimezone(zone)
    return next((position for position, cron in enumerate(crons) if cron.holds(local)), None)


def minutes(begin: datetime, end: datetime) -> Iterator[datetime]:
    moment = begin
    while moment < end:
        yield moment
        moment += MINUTE


@pytest.mark.parametrize("zone, day, hours", SWITCHES)
@pytest.mark.parametrize("cron", ["* 0 * * *", "* 1 * * *", "* 2 * * *", "* 0-2 * * *", "* 3-23 * * *", "* 23 * * *"])
def test_every_minute_around_a_switch_day_is_that_of_the_wall_clock(
    zone: str, day: date, hours: float, cron: str
) -> None:
    info = ZoneInfo(zone)
    begin = datetime(day.year, day.month, day.day, tzinfo=info).astimezone(UTC)
    following = day + timedelta(days=1)
    end = datetime(following.year, following.month, following.day, tzinfo=info).astimezone(UTC)
    wanted = set(parse_range(cron).hours)
    table = compile_timetable(zone, [Schedule(cron, 1)])

    around = list(minutes(begin - timedelta(hours=12), end + timedelta(hours=12)))

    assert (end - begin) / timedelta(hours=1) == hours
    previous = None
    for moment in around:
        holds = moment.astimezone(info).hour in wanted
        assert (table.index_at(moment) == 0) is holds, moment
        assert (table.index_at(moment + MINUTE - MICROSECOND) == 0) is holds, moment
        if previous is not None and previous != holds:
            # The edge is exactly there, and is the next change of the microsecond before it.
            assert (table.index_at(moment - MICROSECOND) == 0) is previous
            assert table.next_change(moment - MICROSECOND) == moment
        previous = holds


@pytest.mark.parametrize("day", LEAP_DAYS)
def test_a_leap_day_holds_from_its_first_to_its_last_microsecond(day: date) -> None:
    table = compile_timetable("Europe/Berlin", [Schedule("* * 29 2 *", 1)])
    begin = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
    end = begin + timedelta(days=1)

    assert [table.index_at(begin - MICROSECOND), table.index_at(begin)] == [None, 0]
    assert [table.index_at(end - MICROSECOND), table.index_at(end)] == [0, None]
    assert table.next_change(begin - timedelta(days=1000)) == begin
    assert table.next_change(begin) == end


@settings(max_examples=60, deadline=None)
@given(st.lists(DRAWN, min_size=2, max_size=3))
def test_an_overlap_is_a_minute_of_the_calendar_in_both(crons: list[Drawn]) -> None:
    held = [{(day, hour) for day in CALENDAR if cron.holds_on(day) for hour in hours_of(cron)} for cron in crons]
    expected = [
        (first, second)
        for first in range(len(crons))
        for second in range(first + 1, len(crons))
        if held[first] & held[second]
    ]

    assert overlapping([parse_range(cron.text) for cron in crons]) == expected
    if expected:
        with pytest.raises(ScheduleError, match="overlap"):
            compiled("UTC", crons)
    else:
        compiled("UTC", crons)


def hours_of(cron: Drawn) -> frozenset[int]:
    """Enough of them to tell whether two sets of hours meet."""
    return frozenset(range(24)) if cron.hours is None else cron.hours


@settings(max_examples=60, deadline=None)
@given(
    st.lists(DRAWN, min_size=1, max_size=3),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2023, 12, 30), datetime(2028, 3, 2)),  # noqa: DTZ001 - made aware below
)
def test_the_next_change_is_the_first_minute_at_which_another_holds(
    crons: list[Drawn], zone: str, naive: datetime
) -> None:
    try:
        table = compiled(zone, crons)
    except ScheduleError:
        assume(False)
        raise
    now, info = naive.replace(tzinfo=UTC), ZoneInfo(zone)
    present = expected_index(crons, now, info)
    horizon = now + timedelta(days=4)
    first_minute = now.replace(second=0, microsecond=0) + MINUTE

    change = table.next_change(now)

    assert table.index_at(now) == present
    expected = next((at for at in minutes(first_minute, horizon) if expected_index(crons, at, info) != present), None)
    if expected is not None:
        assert change == expected
    else:
        assert change is None or change >= horizon
    if change is not None:
        assert expected_index(crons, change - MICROSECOND, info) == present
        assert expected_index(crons, change, info) == table.index_at(change) != present


def near_switch(day: date, hours: int, seconds: int) -> datetime:
    return datetime.combine(day, time(), UTC) + timedelta(hours=hours, seconds=seconds)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(DRAWN, min_size=1, max_size=3),
    st.integers(0, 3),
    st.sampled_from([*ZONES, "America/Santiago"]),
    st.one_of(
        st.datetimes(datetime(2024, 1, 1), datetime(2028, 3, 2), timezones=st.just(UTC)),  # noqa: DTZ001 - they get one
        # Around switches of the clock, and close to whole hours.
        st.builds(
            near_switch, st.sampled_from([day for _, day, _ in SWITCHES]), st.integers(-12, 36), st.integers(-3, 3)
        ),
    ),
    st.sampled_from([timedelta(), MINUTE, 2 * MINUTE, timedelta(hours=2), timedelta(days=1)]),
)
def test_a_change_that_comes_soon_is_the_next_one(
    crons: list[Drawn], outside: int, zone: str, now: datetime, horizon: timedelta
) -> None:
    try:
        table = compiled(zone, crons)
    except ScheduleError:
        assume(False)
        raise

    change = Timetable(table.zone, table.entries).next_change(now, outside)

    expected = change if change is not None and change <= now + horizon else None
    assert table.change_within(now, horizon, outside) == expected


def nearly_all(low: int, high: int) -> st.SearchStrategy[frozenset[int] | None]:
    full = frozenset(range(low, high + 1))
    return st.one_of(st.none(), st.just(full), st.integers(low, high).map(lambda left_out: full - {left_out}))


NEARLY_ALWAYS = st.builds(Drawn, nearly_all(0, 23), nearly_all(1, 31), nearly_all(1, 12), nearly_all(0, 6))


@settings(max_examples=60, deadline=None)
@given(NEARLY_ALWAYS, st.sampled_from(ZONES))
def test_only_what_holds_in_every_hour_of_the_calendar_never_changes(cron: Drawn, zone: str) -> None:
    held = [cron.holds_on(day) for day in CALENDAR]
    holds_always = all(held) and len(hours_of(cron)) == 24

    change = compiled(zone, [cron]).next_change(datetime(2024, 2, 28, tzinfo=UTC))

    assert (change is None) is holds_always


@pytest.mark.parametrize(
    "cron", ["* * * * *", "* 0-23 1-31 1-12 0-6", "* 0-11,12-23 1-15,16-31 JAN-DEC *", "* * 31 * *"]
)
def test_the_calendar_is_not_gone_through_for_what_never_changes(cron: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = compile_timetable("Europe/Berlin", [Schedule(cron, 1)])
    asked: list[int] = []
    holds_on = Cron.holds_on

    def count_and_ask(cron: Cron, *, month: int, day: int, weekday: int) -> bool:
        asked.append(day)
        return holds_on(cron, month=month, day=day, weekday=weekday)

    monkeypatch.setattr(Cron, "holds_on", count_and_ask)

    change = table.next_change(datetime(2025, 1, 2, tzinfo=UTC))

    assert (change is None) is (len(asked) == 0)


@settings(max_examples=60, deadline=None)
@given(
    DRAWN,
    st.sampled_from(ZONES),
    st.lists(st.datetimes(datetime(2024, 1, 1), datetime(2024, 1, 20)), min_size=2, max_size=8),  # noqa: DTZ001 - below
)
def test_what_was_asked_before_changes_no_answer(cron: Drawn, zone: str, asked: list[datetime]) -> None:
    remembering = compiled(zone, [cron])

    for naive in asked:
        moment = naive.replace(tzinfo=UTC)
        fresh = Timetable(remembering.zone, remembering.entries)
        assert remembering.next_change(moment) == fresh.next_change(moment)


@settings(max_examples=100, deadline=None)
@given(DRAWN)
def test_a_field_alone_means_what_it_means_within_its_expression(cron: Drawn) -> None:
    _, hours, days, months, weekdays = croniter.expand(cron.text)[0]
    parsed = parse_range(cron.text)

    for expanded, values, full in (
        (hours, parsed.hours, range(24)),
        (days, parsed.days, range(1, 32)),
        (months, parsed.months, range(1, 13)),
        (weekdays, parsed.weekdays, range(7)),
    ):
        assert values == frozenset(full if expanded == ["*"] else map(int, expanded))


def test_what_is_no_expression_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(CronError):
            parse_range("* 25 * * *")
        with pytest.raises(ScheduleError):
            compile_timetable("UTC", [Schedule("* 25 * * *", 1)])
