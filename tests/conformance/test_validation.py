"""`validation.json`: which schedules overlap, and which presets a manifest may have."""

from __future__ import annotations

import pytest

from prebuilds.chassis.patterns import matches
from prebuilds.reconciler.rules.cron import parse_range
from prebuilds.reconciler.rules.manifest import Manifest
from prebuilds.reconciler.rules.manifest_checks import check_manifest
from prebuilds.reconciler.rules.schedule import overlapping
from tests.conformance.cases import Case, load


@pytest.mark.parametrize("case", load("validation.json", "schedules_overlap"))
def test_overlap(case: Case) -> None:
    crons = [parse_range(expression) for expression in case["input"]["schedules"]]
    assert bool(overlapping(crons)) == case["expect"]["overlap"]


@pytest.mark.parametrize("case", load("validation.json", "validate_schedules"))
def test_schedules_of_a_preset(case: Case) -> None:
    schedule = [{"cron": expression, "instances": 1} for expression in case["input"]["schedules"]]
    preset = {"name": "p", "prebuilds": {"instances": 1, "scheduling": {"timezone": "UTC", "schedule": schedule}}}
    checked = check_manifest({"name": "t", "backend": "process", "presets": [preset]}, matches)
    assert isinstance(checked, Manifest) == case["expect"]["valid"]


@pytest.mark.parametrize("case", load("validation.json", "preset_definition"))
def test_preset_definition(case: Case) -> None:
    names = case["input"].get("parameters", {})
    parameters = [{"name": name, "type": "string"} for name in names]
    manifest = {"name": "t", "backend": "process", "parameters": parameters, "presets": [case["input"]]}
    checked = check_manifest(manifest, matches)
    assert isinstance(checked, Manifest) == case["expect"]["valid"]
