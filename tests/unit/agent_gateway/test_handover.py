"""The table of behaviour section 8, row by row and over all small numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from prebuilds.agent_gateway.rules.handover import (
    Answer,
    Finished,
    Hold,
    NeverAPrebuild,
    Reinitialise,
    Revoked,
    Stale,
    Standing,
    Unreachable,
    answer_to,
)

PREBUILD = Standing(
    is_revoked=False,
    incarnation=1,
    stored_incarnation=1,
    generation=0,
    handover_generation=0,
    claim_generation=0,
    is_prebuild=True,
)
CLAIMED = replace(PREBUILD, is_prebuild=False, claim_generation=1)
DUE = replace(CLAIMED, handover_generation=1)


@pytest.mark.parametrize(
    "standing,answer",
    [
        (replace(DUE, is_revoked=True, stored_incarnation=2), Revoked()),
        (replace(DUE, stored_incarnation=2), Stale()),
        (replace(DUE, stored_incarnation=0), Stale()),
        (DUE, Reinitialise(1)),
        (PREBUILD, Hold()),
        (replace(PREBUILD, is_prebuild=False), NeverAPrebuild()),
        (CLAIMED, Hold()),
        (replace(DUE, generation=1), Finished()),
        (replace(DUE, generation=2), Unreachable()),
    ],
)
def test_the_first_row_that_fits_answers(standing: Standing, answer: Answer) -> None:
    assert answer_to(standing) == answer


def standings() -> list[Standing]:
    numbers = range(4)
    return [
        Standing(revoked, incarnation, stored, generation, handover, claim, is_prebuild)
        for revoked, is_prebuild in product((False, True), repeat=2)
        for incarnation, stored in product(range(1, 3), repeat=2)
        for generation, handover, claim in product(numbers, repeat=3)
    ]


def is_reachable(standing: Standing) -> bool:
    """What the schema and the writers of the two generations allow."""
    generations = standing.generation <= standing.handover_generation <= standing.claim_generation
    return generations and (not standing.is_prebuild or standing.claim_generation == 0)


def test_the_last_row_is_unreachable() -> None:
    reachable = [standing for standing in standings() if is_reachable(standing)]

    assert reachable
    assert not [standing for standing in reachable if isinstance(answer_to(standing), Unreachable)]


def test_no_stream_is_told_to_begin_again_at_a_generation_that_it_runs() -> None:
    for standing in standings():
        answer = answer_to(standing)
        if isinstance(answer, Reinitialise):
            assert standing.generation < answer.generation == standing.handover_generation


def test_before_the_handover_is_due_a_claimed_prebuild_is_held() -> None:
    for standing in standings():
        usable = (
            is_reachable(standing) and not standing.is_revoked and standing.incarnation == standing.stored_incarnation
        )
        if usable and standing.generation == standing.handover_generation < standing.claim_generation:
            assert answer_to(standing) == Hold()


def test_only_a_stream_that_runs_the_last_generation_ends_well() -> None:
    for standing in standings():
        if isinstance(answer_to(standing), Finished):
            assert standing.generation == standing.handover_generation == standing.claim_generation > 0
