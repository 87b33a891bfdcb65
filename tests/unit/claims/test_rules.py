"""Misses, standing and parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prebuilds.chassis.patterns import matches
from prebuilds.claims.rules.misses import MESSAGES, REFUSED_AS, PoolFacts, why_missed
from prebuilds.claims.rules.parameters import all_values, changed_problems, immutable_choices
from prebuilds.claims.rules.standing import (
    STATUS,
    AgentStanding,
    Ended,
    WorkspaceStatus,
    how_it_ended,
    is_ready,
    standings_of,
)
from prebuilds.domain.agents import AgentState
from prebuilds.domain.builds import JobStatus, Transition
from prebuilds.domain.claims import MissReason
from prebuilds.domain.parameters import Parameter, ParameterType
from prebuilds.domain.pools import PresetStatus

WORST = PoolFacts(False, PresetStatus.VALIDATION_FAILED, paused=True, ready=0, prebuilds=1, older=1)
STEPS: list[tuple[MissReason, dict[str, Any]]] = [
    (MissReason.NO_POOL, {"has_pool": True}),
    (MissReason.VALIDATION_FAILED, {"status": PresetStatus.HARD_LIMITED}),
    (MissReason.HARD_LIMITED, {"status": PresetStatus.HEALTHY}),
    (MissReason.PAUSED, {"paused": False}),
    (MissReason.ROTATING, {"older": 0}),
    (MissReason.NONE_READY, {"prebuilds": 0}),
    (MissReason.POOL_EMPTY, {}),
]


def test_the_first_reason_that_applies_is_given() -> None:
    facts = WORST
    for reason, mended in STEPS:
        assert why_missed(facts) is reason
        facts = replace(facts, **mended)


def test_a_version_with_a_ready_prebuild_is_not_rotating() -> None:
    facts = PoolFacts(True, PresetStatus.HEALTHY, paused=False, ready=1, prebuilds=1, older=3)

    assert why_missed(facts) is MissReason.NONE_READY


def test_every_miss_is_refused_with_its_own_reason() -> None:
    assert {REFUSED_AS[miss].name for miss in MissReason} == {miss.name for miss in MissReason}
    assert set(MESSAGES) == set(MissReason)
    assert not any("_" in message for message in MESSAGES.values())


def test_every_state_of_a_build_has_a_status() -> None:
    assert {f"{transition}:{status}" for transition in Transition for status in JobStatus} <= set(STATUS)
    assert all(standings_of(status) for status in WorkspaceStatus)


READY = AgentStanding("main", AgentState.READY, 1)


def test_ready_means_every_agent_in_the_owners_generation() -> None:
    assert is_ready(WorkspaceStatus.RUNNING, 1, [READY])
    assert not is_ready(WorkspaceStatus.RUNNING, 2, [READY])
    assert not is_ready(WorkspaceStatus.RUNNING, 1, [READY, replace(READY, state=AgentState.STARTING)])
    assert not is_ready(WorkspaceStatus.RUNNING, 1, [])
    assert not is_ready(WorkspaceStatus.STARTING, 1, [READY])


def test_an_old_owners_failed_agent_does_not_end_a_watch() -> None:
    broken = AgentStanding("main", AgentState.START_ERROR, 0)

    assert how_it_ended(WorkspaceStatus.RUNNING, 1, [broken]) is None
    ended = how_it_ended(WorkspaceStatus.RUNNING, 0, [broken])
    assert ended is not None
    assert ended.agent == broken


@pytest.mark.parametrize("status", [WorkspaceStatus.STOPPED, WorkspaceStatus.DELETED])
def test_what_is_at_rest_ended_well(status: WorkspaceStatus) -> None:
    assert how_it_ended(status, 0, []) == Ended()


SIZE = Parameter("size", ParameterType.STRING, "small", mutable=False, options=("small", "large"))
CPUS = Parameter("cpus", ParameterType.NUMBER, None, mutable=True, options=())
DEBUG = Parameter("debug", ParameterType.BOOL, "false", mutable=True, options=())


def test_a_value_beyond_the_preset_that_is_the_default_is_no_choice() -> None:
    assert immutable_choices([SIZE, CPUS], {"size": "small", "cpus": "2"}, {}) == ()
    assert immutable_choices([SIZE], {"size": "large"}, {}) == ("size",)
    assert immutable_choices([SIZE], {"size": "large"}, {"size": "large"}) == ()


def test_a_preset_comes_before_what_is_given_and_that_before_the_default() -> None:
    assert all_values([SIZE, CPUS, DEBUG], {"cpus": "2", "size": "large"}, {"size": "small"}) == {
        "size": "small",
        "cpus": "2",
        "debug": "false",
    }


def test_what_exists_changes_only_in_mutable_parameters() -> None:
    problems = changed_problems([SIZE, CPUS], {"size": "large", "cpus": "x", "nope": ""}, matches)

    assert {problem.field for problem in problems} == {"parameters.size", "parameters.cpus", "parameters.nope"}
    assert list(changed_problems([SIZE, CPUS], {"cpus": "4"}, matches)) == []
