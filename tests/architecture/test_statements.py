"""Statements stand in `queries`; the import contracts cannot see one that is a literal."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ASKING: Final = frozenset({"run", "execute", "scalar", "fetch_one", "fetch_all"})
AT_ONCE: Final = frozenset({"fetch_once", "run_once"})
"""The same of a database, in a transaction of their own."""


def test_only_queries_ask_a_statement() -> None:
    sources = {path for path in ROOT.glob("services/*/src/prebuilds/**/*.py") if path.parent.name != "queries"}
    assert len(sources) > 50, "the services were not found"
    found = [f"{path.relative_to(ROOT)}:{line}" for path in sorted(sources) for line in statements_asked(path)]
    assert not found, "statements outside of queries"


def statements_asked(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            is_asking = (owner == "tx" and node.func.attr in ASKING) or (
                owner.endswith("database") and node.func.attr in AT_ONCE
            )
            if is_asking:
                yield node.lineno
