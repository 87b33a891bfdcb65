"""Statements about one preset, some, or all."""

from __future__ import annotations

from uuid import UUID

import pytest

from prebuilds.domain.ids import SYSTEM_USER_ID, PresetId
from prebuilds.reconciler.queries.forms import Forms

STATEMENT = (
    b"SELECT FROM builds WHERE preset_id = ANY(%(preset_ids)s) AND initiator_id = %(system_user_id)s AND n = %(n)s"
)
ONE, OTHER = PresetId(UUID(int=1)), PresetId(UUID(int=2))


def test_one_is_compared_with_and_not_searched_in_an_array() -> None:
    statement, parameters = Forms.of(STATEMENT).about([ONE], n=3)

    assert b"preset_id = %(preset_id)s::uuid AND" in statement
    assert parameters == {"preset_id": ONE, "n": 3}


@pytest.mark.parametrize("preset_ids", [[ONE, OTHER], []])
def test_some_are_an_array_that_the_planner_does_not_see(preset_ids: list[PresetId]) -> None:
    statement, parameters = Forms.of(STATEMENT).about(preset_ids, n=3)

    assert b"preset_id = ANY(ARRAY(SELECT unnest(%(preset_ids)s::uuid[]))) AND" in statement
    assert parameters == {"preset_ids": preset_ids, "n": 3}


def test_all_need_no_ids() -> None:
    statement, parameters = Forms.of(STATEMENT).about(None, n=3)

    assert b"preset_id IS NOT NULL AND" in statement
    assert parameters == {"n": 3}


def test_the_system_user_is_written_out_so_that_its_indexes_serve() -> None:
    for preset_ids in ([ONE], [ONE, OTHER], None):
        statement, _ = Forms.of(STATEMENT).about(preset_ids)
        assert f"initiator_id = '{SYSTEM_USER_ID}'::uuid".encode() in statement
