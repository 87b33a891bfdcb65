"""The program `prebuilds-provisioner`."""

from __future__ import annotations

import sys

from prebuilds.chassis.process import run_service
from prebuilds.provisioner.app import open_app
from prebuilds.provisioner.settings import ProvisionerSettings


def main() -> int:
    """Serve until asked to stop; the exit code."""
    return run_service("provisioner", ProvisionerSettings, open_app)


if __name__ == "__main__":
    sys.exit(main())
