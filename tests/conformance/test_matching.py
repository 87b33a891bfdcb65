"""Which preset given parameters find: every case of `preset_match.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from prebuilds.claims.rules.matching import find_preset
from tests.conformance.cases import Case, load


@dataclass(frozen=True)
class Preset:
    name: str
    is_default: bool
    parameters: Mapping[str, str]


@pytest.mark.parametrize("case", load("preset_match.json"))
def test_parameters_find_the_preset(case: Case) -> None:
    presets = [
        Preset(
            preset.get("name", preset["id"]),
            preset.get("is_default", preset.get("default", False)),
            preset["parameters"],
        )
        for preset in case["presets"]
    ]
    ids = {preset.get("name", preset["id"]): preset["id"] for preset in case["presets"]}

    found = find_preset(presets, case["provided"])

    assert (None if found is None else ids[found.name]) == case["expect"]["preset"]
