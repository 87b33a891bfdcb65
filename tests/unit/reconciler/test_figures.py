"""The figures that metrics show, added up by names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prebuilds.domain.pools import PresetStatus
from prebuilds.reconciler.rules.figures import Figures, Observed, PoolName, add_up, figures_of
from prebuilds.reconciler.rules.schedule import Schedule
from prebuilds.reconciler.rules.state import Counts, Policy
from prebuilds.reconciler.rules.target import Wish, compile_wish

MONDAY_NOON = datetime(2025, 6, 2, 12, tzinfo=UTC)
NAME = PoolName("acme", "python-dev", "small")


def observed(
    policy: Policy, counts: Counts | None = None, *, waiting: int = 0, is_paused: bool = False, name: PoolName = NAME
) -> Observed:
    return Observed(name, policy, counts or Counts(), waiting, is_paused)


def test_what_is_desired_follows_the_schedule() -> None:
    policy = Policy(is_active=True, wish=compile_wish(2, "UTC", [Schedule("* 9-18 * * 1-5", 7)]))

    assert figures_of(observed(policy), MONDAY_NOON).desired == 7
    assert figures_of(observed(policy), MONDAY_NOON - timedelta(days=1)).desired == 2


def test_figures_are_those_of_the_pass() -> None:
    counts = Counts(running=5, expired=1, ready=3, starting=2, queued=1, failed=4)

    figures = figures_of(observed(Policy(is_active=True, wish=Wish(3)), counts, waiting=6), MONDAY_NOON)

    assert figures == Figures(3, 5, 3, 2, 1, 6, is_hard_limited=False, is_validation_failed=False, is_paused=False)


def test_versions_of_one_name_are_added_up_and_only_the_active_one_says_what_is_wrong() -> None:
    active = observed(
        Policy(is_active=True, wish=Wish(3), status=PresetStatus.VALIDATION_FAILED), Counts(running=1, ready=1)
    )
    old = observed(
        Policy(is_active=False, wish=Wish(9), status=PresetStatus.HARD_LIMITED),
        Counts(running=2, ready=2, starting=1),
        is_paused=True,
    )
    other = observed(Policy(is_active=True, wish=Wish(1)), name=NAME._replace(preset="large"), is_paused=True)

    added = add_up([active, old, other], MONDAY_NOON)

    assert added[NAME] == Figures(3, 3, 1, 1, 0, 0, is_hard_limited=False, is_validation_failed=True, is_paused=False)
    assert added[other.name].is_paused
    assert len(added) == 2
