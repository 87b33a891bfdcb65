from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilds.domain.refusals import CODES, Reason
from prebuilds.sdk.agent import rules
from prebuilds.sdk.agent.rules import Answer, BeginAgain, Failures, StopAsking, TryAgain

FRACTIONS = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    "code, reason, answer",
    [
        ("OK", None, Answer.OK),
        ("FAILED_PRECONDITION", Reason.NOT_A_PREBUILD, Answer.NOT_A_PREBUILD),
        ("FAILED_PRECONDITION", None, Answer.NOT_A_PREBUILD),
        ("ABORTED", Reason.STALE_INCARNATION, Answer.STALE),
        ("ABORTED", Reason.TRANSACTION_CONFLICT, Answer.FAULT),
        ("ABORTED", None, Answer.FAULT),
        ("UNAUTHENTICATED", Reason.TOKEN_REVOKED, Answer.UNAUTHENTICATED),
        ("UNAUTHENTICATED", None, Answer.UNAUTHENTICATED),
        ("UNAVAILABLE", Reason.DRAINING, Answer.FAULT),
        ("UNAVAILABLE", Reason.STREAM_REPLACED, Answer.FAULT),
        ("INTERNAL", Reason.INTERNAL, Answer.FAULT),
        ("UNKNOWN", None, Answer.FAULT),
        ("CANCELLED", None, Answer.FAULT),
        ("PERMISSION_DENIED", Reason.PERMISSION_DENIED, Answer.FAULT),
        ("UNIMPLEMENTED", Reason.METHOD_NOT_BUILT, Answer.FAULT),
    ],
)
def test_an_answer_is_told_by_its_code_and_staleness_by_its_reason(
    code: str, reason: Reason | None, answer: Answer
) -> None:
    assert rules.answer_of(code, reason) is answer


@pytest.mark.parametrize("reason", Reason)
def test_no_refusal_but_three_changes_what_an_agent_does(reason: Reason) -> None:
    answer = rules.answer_of(CODES[reason].value, reason)
    expected = {
        "FAILED_PRECONDITION": Answer.NOT_A_PREBUILD,
        "UNAUTHENTICATED": Answer.UNAUTHENTICATED,
    }.get(CODES[reason].value, Answer.FAULT)
    assert answer is (Answer.STALE if reason is Reason.STALE_INCARNATION else expected)


def test_a_stream_that_ends_well_or_for_good_is_not_asked_for_again() -> None:
    assert rules.after_stream(Answer.OK, Failures(1), 0.5) == StopAsking()
    assert rules.after_stream(Answer.NOT_A_PREBUILD, Failures(1), 0.5) == StopAsking()


def test_a_call_that_is_no_stream_is_never_given_up() -> None:
    for answer in Answer:
        assert isinstance(rules.after_call(answer, Failures(1, 1), 0.5), BeginAgain | TryAgain)


@given(FRACTIONS)
def test_staleness_is_waited_out_for_about_five_minutes(fraction: float) -> None:
    for decide in (rules.after_call, rules.after_stream):
        decision = decide(Answer.STALE, Failures(1), fraction)
        assert isinstance(decision, BeginAgain)
        assert timedelta(minutes=4) <= decision.after <= timedelta(minutes=6)


@given(st.integers(1, 10_000), FRACTIONS)
def test_faults_are_spread_from_a_tenth_of_a_second_to_ten_seconds(faults: int, fraction: float) -> None:
    pause = rules.pause(Answer.FAULT, Failures(faults), fraction)
    assert timedelta(milliseconds=100) <= pause <= timedelta(seconds=10)


def test_the_bound_of_faults_doubles() -> None:
    almost_one = 1 - 1e-9
    seconds = [rules.pause(Answer.FAULT, Failures(faults), almost_one).total_seconds() for faults in range(1, 9)]
    assert seconds == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10], rel=1e-6)


@given(st.integers(1, 10_000), FRACTIONS)
def test_a_refused_token_is_shown_again_at_most_five_minutes_later(times: int, fraction: float) -> None:
    pause = rules.pause(Answer.UNAUTHENTICATED, Failures(unauthenticated=times), fraction)
    assert timedelta(milliseconds=800) <= pause <= timedelta(minutes=5)


def test_faults_and_refused_tokens_are_counted_apart() -> None:
    failures = rules.NO_FAILURES.and_one(Answer.FAULT).and_one(Answer.UNAUTHENTICATED).and_one(Answer.FAULT)
    assert failures == Failures(faults=2, unauthenticated=1)


def test_only_a_steady_stream_forgives() -> None:
    assert rules.still_counting(Failures(5), timedelta(seconds=29.999)) == Failures(5)
    assert rules.still_counting(Failures(5, 3), timedelta(seconds=30)) == rules.NO_FAILURES


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_reinit_counts_only_above_the_own_generation(own: int, generation: int) -> None:
    assert rules.is_due(own, generation) == (generation > own)


@given(st.lists(st.integers(0, 5)))
def test_no_generation_is_entered_twice_whatever_manifests_come(generations: list[int]) -> None:
    own: int | None = None
    entered: list[int] = []
    for generation in generations:
        if rules.is_to_be_entered(own, generation):
            own = generation
            entered.append(generation)
    assert entered == sorted(set(entered))
    assert entered[:1] == generations[:1]


def test_the_rules_wait_for_nothing_and_know_no_time() -> None:
    source = Path(rules.__file__).read_text(encoding="utf-8")
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {"__future__", "dataclasses", "datetime", "enum", "typing", "prebuilds"}
