from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prebuilds.claims.rules.matching import find_preset


@dataclass(frozen=True)
class Preset:
    name: str
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    is_default: bool = False


def test_a_tie_goes_to_the_default_preset() -> None:
    presets = [Preset("a", {"size": "s"}), Preset("b", {"size": "s"}, is_default=True)]

    assert find_preset(presets, {"size": "s"}) is presets[1]


def test_a_tie_without_a_default_goes_to_the_first_name() -> None:
    presets = [Preset("b", {"size": "s"}), Preset("a", {"size": "s"})]

    assert find_preset(presets, {"size": "s"}) is presets[1]


def test_values_are_compared_as_text_with_their_case() -> None:
    assert find_preset([Preset("a", {"size": "S"})], {"size": "s"}) is None


def test_the_default_preset_loses_against_one_with_more_parameters() -> None:
    presets = [Preset("a", {}, is_default=True), Preset("b", {"size": "s"})]

    assert find_preset(presets, {"size": "s"}) is presets[1]
