from __future__ import annotations

import pytest

from prebuilds.agent_gateway.rules.incarnations import (
    Beginning,
    Incarnation,
    Outdated,
    Repeated,
    Rises,
    incarnation_of,
)

STORED = Beginning("process-a", 2)


@pytest.mark.parametrize(
    "beginning,expected",
    [
        (Beginning("process-a", 2), Repeated()),
        (Beginning("process-a", 1), Outdated()),
        (Beginning("process-a", 3), Rises(6, alternates=False)),
        (Beginning("process-b", 1), Rises(6, alternates=False)),
        (Beginning("process-b", 2), Rises(6, alternates=True)),
    ],
)
def test_a_beginning_beside_the_stored_one(beginning: Beginning, expected: Incarnation) -> None:
    assert incarnation_of(beginning, stored=STORED, incarnation=5) == expected


def test_the_first_beginning_of_an_epoch_alternates_with_nobody() -> None:
    assert incarnation_of(Beginning("process-b", 4), stored=Beginning("", 0), incarnation=5) == Rises(
        6, alternates=False
    )
