"""Which prebuilds that came to nothing are removed, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilds.domain.ids import WorkspaceId
from prebuilds.reconciler.rules.retention import (
    MOST_FAILURES_THAT_MATTER,
    Ended,
    Removal,
    RemovalReason,
    pause_after,
    what_to_remove,
)

NOW = datetime(2025, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(hours=24)
MINUTE = timedelta(minutes=1)


def ended(
    number: int,
    ago: timedelta,
    *,
    age: timedelta = timedelta(0),
    failed_deletes: int = 0,
    is_marked: bool = False,
) -> Ended:
    """One that ended so long ago; it was created `age` before that."""
    workspace_id = WorkspaceId(UUID(int=number))
    return Ended(workspace_id, NOW - ago - age, NOW - ago, failed_deletes, is_marked=is_marked)


def removed(*all_ended: Ended, desired: int = 3, keep_for: timedelta = DAY) -> dict[int, RemovalReason]:
    return {each.workspace_id.int: each.reason for each in what_to_remove(all_ended, desired, NOW, keep_for=keep_for)}


def test_one_is_kept_for_its_time_and_no_longer() -> None:
    assert removed(ended(1, DAY - timedelta(microseconds=1))) == {}
    assert removed(ended(1, DAY)) == {1: RemovalReason.RETENTION}


def test_its_time_begins_at_its_end_and_not_at_its_creation() -> None:
    assert removed(ended(1, timedelta(hours=1), age=timedelta(days=30))) == {}


def test_nothing_is_kept_for_no_time() -> None:
    assert removed(ended(1, timedelta(0)), keep_for=timedelta(0)) == {1: RemovalReason.RETENTION}


def test_the_oldest_beyond_what_the_pool_wants_go_at_once() -> None:
    several = [ended(number, timedelta(minutes=number)) for number in (1, 2, 3, 4, 5)]

    assert removed(*several, desired=3) == {5: RemovalReason.SURPLUS, 4: RemovalReason.SURPLUS}


def test_the_oldest_is_the_one_created_first() -> None:
    assert removed(ended(1, MINUTE, age=DAY), ended(2, 2 * MINUTE), desired=1) == {1: RemovalReason.SURPLUS}


def test_ties_go_by_id() -> None:
    assert removed(ended(2, MINUTE), ended(1, MINUTE), desired=1) == {1: RemovalReason.SURPLUS}


def test_a_pool_that_wants_none_keeps_one() -> None:
    assert removed(ended(1, MINUTE), ended(2, 2 * MINUTE), desired=0) == {2: RemovalReason.SURPLUS}


def test_what_is_on_its_way_out_takes_no_place_of_what_is_kept() -> None:
    assert removed(ended(1, MINUTE), ended(2, timedelta(0), age=DAY, failed_deletes=1), desired=1) == {}


def test_one_that_runs_although_it_is_marked_takes_no_place_of_what_is_kept() -> None:
    marked = ended(2, MINUTE, age=DAY, is_marked=True)

    assert removed(ended(1, MINUTE), marked, desired=1) == {}


def test_one_that_runs_although_it_is_marked_goes_when_it_was_kept_long_enough() -> None:
    assert removed(ended(1, DAY - timedelta(microseconds=1), is_marked=True)) == {}
    assert removed(ended(1, DAY, is_marked=True)) == {1: RemovalReason.MARKED}


def test_one_whose_delete_failed_again_is_retried_whoever_has_started_it_before() -> None:
    assert removed(ended(1, MINUTE, failed_deletes=1, is_marked=True)) == {1: RemovalReason.DELETE_FAILED}


def test_the_oldest_come_first() -> None:
    several = [ended(1, DAY), ended(2, 3 * DAY), ended(3, 2 * DAY, failed_deletes=1)]

    assert what_to_remove(several, 1, NOW, keep_for=DAY) == [
        Removal(WorkspaceId(UUID(int=2)), RemovalReason.SURPLUS),
        Removal(WorkspaceId(UUID(int=3)), RemovalReason.DELETE_FAILED),
        Removal(WorkspaceId(UUID(int=1)), RemovalReason.RETENTION),
    ]


@pytest.mark.parametrize(
    "failures, minutes", [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (10_000, 60)]
)
def test_the_pause_after_failed_deletes_doubles_from_a_minute_to_an_hour(failures: int, minutes: int) -> None:
    assert pause_after(failures) == minutes * MINUTE


def test_more_failures_than_matter_change_nothing() -> None:
    assert pause_after(MOST_FAILURES_THAT_MATTER) == pause_after(MOST_FAILURES_THAT_MATTER + 1)
    assert pause_after(MOST_FAILURES_THAT_MATTER - 1) < pause_after(MOST_FAILURES_THAT_MATTER)


def test_a_failed_delete_is_tried_again_when_its_pause_is_over_however_long_things_are_kept() -> None:
    early = ended(1, 4 * MINUTE - timedelta(microseconds=1), failed_deletes=3)
    due = ended(1, 4 * MINUTE, failed_deletes=3)

    assert removed(early, keep_for=timedelta(0)) == {}
    assert removed(due, keep_for=timedelta(days=30)) == {1: RemovalReason.DELETE_FAILED}


@given(
    st.lists(
        st.builds(
            ended,
            st.integers(1, 1000),
            st.integers(0, 3000).map(lambda minutes: minutes * MINUTE),
            age=st.integers(0, 3000).map(lambda minutes: minutes * MINUTE),
            failed_deletes=st.integers(0, MOST_FAILURES_THAT_MATTER),
            is_marked=st.booleans(),
        ),
        unique_by=lambda each: each.workspace_id,
        max_size=12,
    ),
    st.integers(0, 5),
)
def test_what_stays_is_never_more_than_wanted_nor_older_than_allowed(several: list[Ended], desired: int) -> None:
    gone = {each.workspace_id for each in what_to_remove(several, desired, NOW, keep_for=DAY)}

    unmarked = [each for each in several if each.failed_deletes == 0 and not each.is_marked]
    kept = [each for each in unmarked if each.workspace_id not in gone]
    assert len(kept) <= max(1, desired)
    assert all(each.ended_at > NOW - DAY for each in kept)
    # Nothing fresh goes unless there are more than wanted.
    fresh = [each for each in unmarked if each.ended_at > NOW - DAY]
    if len(unmarked) <= max(1, desired):
        assert not gone & {each.workspace_id for each in fresh}
