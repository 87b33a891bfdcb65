"""`python -m tests.bench NAME ...`, from the root: run a benchmark; without a name, list them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from prebuilds.chassis.logs import LogFormat, LogLevel, configure_logs
from tests.bench import reconcile

BENCHES: Final[Mapping[str, tuple[str, Callable[[Sequence[str]], None]]]] = {
    "reconcile": ("passes over many pools: idle, creating, contended, mixed", reconcile.main),
}


def main(arguments: Sequence[str]) -> int:
    """Run the one that is named."""
    name, *rest = arguments or [""]
    if name not in BENCHES:
        print("usage: make bench NAME=<name> [ARGS=...]")
        for each, (about, _) in BENCHES.items():
            print(f"  {each:<12} {about}")
        return 2 if name else 0
    configure_logs("bench", level=LogLevel.WARNING, log_format=LogFormat.CONSOLE)
    BENCHES[name][1](rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
