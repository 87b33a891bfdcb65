from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from prebuilds.domain.builds import BackendKind, JobStatus, Transition
from prebuilds.provisioner.rules.lost_jobs import (
    EndCanceled,
    GiveUp,
    Holding,
    LeaveAlone,
    Patience,
    PutBack,
    what_becomes_of,
)
from prebuilds.provisioner.rules.results import agents_left

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PATIENCE = Patience(cancel_grace=MINUTE, longest_wait=30 * MINUTE, max_attempts=3)
WAITING = Holding(JobStatus.PENDING, 0, NOW, None, None, BackendKind.PROCESS, {})
HELD = replace(WAITING, status=JobStatus.RUNNING, attempt=1, lease_expires_at=NOW + MINUTE)
LOST = replace(HELD, lease_expires_at=NOW - MINUTE)


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED])
def test_a_finished_job_is_left_alone(status: JobStatus) -> None:
    assert what_becomes_of(replace(LOST, status=status), PATIENCE, NOW) == LeaveAlone()


def test_a_job_waits_half_an_hour_and_no_longer() -> None:
    at_the_end = NOW + PATIENCE.longest_wait
    assert what_becomes_of(WAITING, PATIENCE, at_the_end) == LeaveAlone()
    assert isinstance(what_becomes_of(WAITING, PATIENCE, at_the_end + timedelta(microseconds=1)), GiveUp)


def test_a_job_put_back_waits_anew() -> None:
    put_back = replace(WAITING, lease_expires_at=NOW + 20 * MINUTE)
    assert what_becomes_of(put_back, PATIENCE, NOW + 40 * MINUTE) == LeaveAlone()
    assert isinstance(what_becomes_of(put_back, PATIENCE, NOW + 51 * MINUTE), GiveUp)


def test_the_reason_names_what_a_daemon_must_have() -> None:
    tagged = replace(WAITING, tags={"host": "h1", "gpu": "yes"})
    verdict = what_becomes_of(tagged, PATIENCE, NOW + 31 * MINUTE)
    assert isinstance(verdict, GiveUp)
    assert "backend process" in verdict.error
    assert "gpu=yes, host=h1" in verdict.error


def test_a_held_job_is_left_alone() -> None:
    assert what_becomes_of(HELD, PATIENCE, NOW) == LeaveAlone()


@pytest.mark.parametrize("attempt, expected", [(1, PutBack), (2, PutBack), (3, GiveUp)])
def test_a_lost_job_is_tried_three_times(attempt: int, expected: type[object]) -> None:
    assert isinstance(what_becomes_of(replace(LOST, attempt=attempt), PATIENCE, NOW), expected)


def test_a_cancelled_job_has_its_grace() -> None:
    asked = replace(HELD, status=JobStatus.CANCELING, cancel_requested_at=NOW - MINUTE)
    assert what_becomes_of(asked, PATIENCE, NOW) == LeaveAlone()
    assert isinstance(what_becomes_of(asked, PATIENCE, NOW + timedelta(microseconds=1)), EndCanceled)


def test_a_cancelled_job_that_is_lost_is_not_tried_again() -> None:
    asked = replace(LOST, status=JobStatus.CANCELING, cancel_requested_at=NOW)
    assert isinstance(what_becomes_of(asked, PATIENCE, NOW), EndCanceled)


def test_only_a_start_decides_about_agents() -> None:
    assert agents_left(Transition.START, ["main", "stranger"], ["main", "side"]) == ["main"]
    assert agents_left(Transition.START, [], ["main"]) == []
    assert agents_left(Transition.STOP, [], ["main"]) is None
    assert agents_left(Transition.DELETE, [], ["main"]) is None
