"""The program `prebuilds-claims`."""

from __future__ import annotations

import sys

from prebuilds.chassis.process import run_service
from prebuilds.claims.app import open_app
from prebuilds.claims.settings import ClaimsSettings


def main() -> None:
    """Serve until asked to stop."""
    sys.exit(run_service("claims", ClaimsSettings, open_app))


if __name__ == "__main__":
    main()
