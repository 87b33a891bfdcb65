"""Which preset a creation means when it names none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar


class Matchable(Protocol):
    """What matching looks at in a preset."""

    @property
    def name(self) -> str:
        """Unique within the version."""
        ...

    @property
    def is_default(self) -> bool:
        """At most one of a version is."""
        ...

    @property
    def parameters(self) -> Mapping[str, str]:
        """The values that it fixes."""
        ...


P = TypeVar("P", bound=Matchable)


def find_preset(presets: Iterable[P], provided: Mapping[str, str]) -> P | None:
    """Find the preset that these parameters mean (behaviour section 6).

    1. Every parameter of the preset is given with an equal value: as text, case-sensitive.
    2. Of those that fit, the one with the most parameters.
    3. Of several such, the default preset, then the first by name.
    """
    fitting = [preset for preset in presets if preset.parameters.items() <= provided.items()]
    return min(fitting, key=lambda preset: (-len(preset.parameters), not preset.is_default, preset.name), default=None)
