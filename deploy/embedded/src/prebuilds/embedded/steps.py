"""What the stack tells people while they wait: each step with its time, at once where it takes long."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console


@dataclass(slots=True)
class Steps:
    """The steps so far; `took` has the seconds of each by its name."""

    console: Console
    took: dict[str, float] = field(default_factory=dict[str, float])
    _began: float = field(default_factory=time.monotonic)

    @contextmanager
    def step(self, name: str) -> Generator[Step]:
        """Show that this is under way, then what came of it and how long it took."""
        began = time.monotonic()
        with self.console.status(name) as status:
            step = Step(name, lambda text: status.update(f"{name}: {text}"))
            yield step
        seconds = self.took[name] = time.monotonic() - began
        self.console.print(f"[green]✓[/] {name:<36} {seconds:6.2f} s  {step.result}")

    def total(self) -> float:
        """Seconds since the first step began."""
        return time.monotonic() - self._began


@dataclass(slots=True)
class Step:
    """One step under way."""

    name: str
    tell: Callable[[str], None]
    """Show how far it is."""
    result: str = ""
    """What came of it, in a few words."""
