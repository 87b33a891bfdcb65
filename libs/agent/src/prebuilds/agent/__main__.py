"""`prebuilds-agent`, or `python -m prebuilds.agent`."""

from __future__ import annotations

import sys

from prebuilds.agent.program import run_program


def main() -> None:
    """Run the agent with the process's arguments and environment."""
    sys.exit(run_program(sys.argv[1:]))


if __name__ == "__main__":
    main()
