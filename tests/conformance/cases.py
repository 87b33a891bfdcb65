"""The cases of behaviour section 12 as parameters of tests; PREBUILDS_CASES names another folder of such files."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

CASES = Path(os.environ.get("PREBUILDS_CASES") or Path(__file__).with_name("cases"))

Case = dict[str, Any]


def load(file: str, kind: str | None = None) -> list[Any]:
    """Give the cases of a file, of one kind where it has several, as pytest parameters with their names."""
    cases: list[Case] = json.loads((CASES / file).read_text(encoding="utf-8"))
    chosen = [case for case in cases if kind is None or case["kind"] == kind]
    assert chosen, f"no cases in {file}"
    return [pytest.param(case, id=case["name"]) for case in chosen]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
