"""The program `prebuilds-provisioner-daemon`."""

from __future__ import annotations

import sys

from prebuilds.chassis.process import run_service
from prebuilds.provisioner_daemon.app import open_app
from prebuilds.provisioner_daemon.settings import DaemonSettings


def main() -> None:
    """Build until asked to stop."""
    sys.exit(run_service("provisioner-daemon", DaemonSettings, open_app))


if __name__ == "__main__":
    main()
