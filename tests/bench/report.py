"""What a benchmark prints: progress on standard error, then a table, and one JSON object as the last line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median


@contextmanager
def progress(what: str) -> Generator[None]:
    """Tell on standard error what is being done and how long it took."""
    print(f"{what} ...", end=" ", file=sys.stderr, flush=True)
    began = time.perf_counter()
    yield
    print(f"{time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)


@dataclass(slots=True)
class Report:
    """Figures by name, and how people read them."""

    title: str
    figures: dict[str, float | int] = field(default_factory=dict[str, "float | int"])
    rows: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])

    def seconds(self, name: str, what: str, values: Sequence[float], note: str = "") -> None:
        """Add a time in seconds, the median of several."""
        middle = median(values)
        self.figures[name] = round(middle, 6)
        spread = f"{_readable(min(values))} to {_readable(max(values))}, {len(values)} runs" if len(values) > 1 else ""
        self.rows.append((what, _readable(middle), ", ".join(filter(None, (spread, note)))))

    def count(self, name: str, what: str, value: int, note: str = "") -> None:
        """Add a number of things."""
        self.figures[name] = value
        self.rows.append((what, f"{value:,}", note))

    def remark(self, text: str) -> None:
        """Add a line that is no figure."""
        self.rows.append((text, "", ""))

    def print(self) -> None:
        """Print the table, and the JSON object as the last line."""
        first, second = (max(len(row[column]) for row in self.rows if row[1]) for column in (0, 1))
        print(f"\n{self.title}\n")
        for what, value, note in self.rows:
            print(f"  {what:<{first}}  {value:>{second}}  {note}".rstrip() if value else f"\n{what}")
        print()
        print(json.dumps(self.figures), flush=True)


def _readable(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds:.3f} s"
