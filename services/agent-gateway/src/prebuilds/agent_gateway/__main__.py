"""The program `prebuilds-agent-gateway`."""

from __future__ import annotations

import sys

from prebuilds.agent_gateway.app import open_app
from prebuilds.agent_gateway.settings import GatewaySettings
from prebuilds.chassis.process import run_service


def main() -> None:
    """Serve until asked to stop."""
    sys.exit(run_service("agent-gateway", GatewaySettings, open_app))


if __name__ == "__main__":
    main()
