"""The program `prebuilds-reconciler`."""

from __future__ import annotations

import sys

from prebuilds.chassis.process import run_service
from prebuilds.reconciler.app import open_app
from prebuilds.reconciler.settings import ReconcilerSettings


def main() -> None:
    """Serve until asked to stop."""
    sys.exit(run_service("reconciler", ReconcilerSettings, open_app))


if __name__ == "__main__":
    main()
