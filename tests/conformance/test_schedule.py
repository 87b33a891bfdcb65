"""`schedule.json`: how many instances are wanted at a moment."""

from __future__ import annotations

import pytest

from prebuilds.reconciler.rules.schedule import Schedule
from prebuilds.reconciler.rules.target import compile_wish, target_at
from tests.conformance.cases import Case, load, moment


@pytest.mark.parametrize("case", load("schedule.json"))
def test_instances_at_a_moment(case: Case) -> None:
    schedules = [Schedule(each["cron"], each["instances"]) for each in case["schedules"]]
    wish = compile_wish(case["default_instances"], case["timezone"], schedules)
    assert target_at(wish, moment(case["at"]), is_active=True).instances == case["expect_instances"]
