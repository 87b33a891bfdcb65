"""The program `prebuilds-provisioner`."""

from __future__ import annotations

import sys

from prebuilds.chassis.process import run_service
from prebuilds.provisioner.app import open_app
from prebuilds.provisioner.settings import ProvisionerSettings


def main() -> None:
    """Serve until asked to stop."""
    sys.exit(run_service("provisioner", ProvisionerSettings, open_app))


if __name__ == "__main__":
    main()
