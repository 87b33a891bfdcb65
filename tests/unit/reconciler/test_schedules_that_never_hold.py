"""A schedule that no date fits is a mistake of whoever wrote it, and is told at the push."""

from __future__ import annotations

import pytest

from prebuilds.chassis.patterns import matches
from prebuilds.reconciler.rules.manifest import Manifest
from prebuilds.reconciler.rules.manifest_checks import check_manifest
from tests.support.reconciling import make_manifest


def wrong_fields(*crons: str) -> list[str]:
    schedule = [{"cron": cron, "instances": 1} for cron in crons]
    preset = {"name": "p", "prebuilds": {"instances": 1, "scheduling": {"timezone": "UTC", "schedule": schedule}}}
    checked = check_manifest(make_manifest(presets=[preset]), matches)
    return [] if isinstance(checked, Manifest) else [violation.field for violation in checked]


@pytest.mark.parametrize("cron", ["* * 30 2 *", "* 9-18 31 4,6,9,11 *", "* * 30-31 FEB *"])
def test_a_day_that_no_named_month_has_is_refused(cron: str) -> None:
    assert wrong_fields("* 8 * * 1", cron) == ["presets[0].prebuilds.scheduling.schedule[1].cron"]


@pytest.mark.parametrize("cron", ["* * 29 2 *", "* * 31 2,3 *", "* * 30 2 1", "* 9-18 31 * *"])
def test_a_day_that_comes_now_and_then_or_stands_beside_a_weekday_is_accepted(cron: str) -> None:
    assert wrong_fields(cron) == []
