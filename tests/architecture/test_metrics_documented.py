"""docs/metrics.md names every metric that is made, and none that is not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
NAME: Final = re.compile(r"prebuilds_[a-z_]+")
NO_METRIC: Final = frozenset({"prebuilds_caller", "prebuilds_deadline"})
"""Names of context variables."""


def test_every_metric_is_in_the_docs() -> None:
    sources = [*ROOT.glob("libs/*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")]
    made = {name for path in sources if "v1" not in path.parts for name in names_in(path)} - NO_METRIC
    assert len(made) > 30, "the metrics were not found"

    told = set(re.findall(r"^\| `(prebuilds_[a-z_]+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))

    assert made == told


def names_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
            yield node.value
