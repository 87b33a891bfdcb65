"""`prebuilds-embedded run` and `prebuilds-embedded smoke`: the whole system by one command."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    # The stack both calls and starts programs; gRPC would say at each start that it leaves the child alone. It reads
    # this when it is imported.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    try:
        from prebuilds.embedded.commands import run_command  # noqa: PLC0415 - after the line above
    except KeyboardInterrupt:
        sys.exit(130)
    run_command()


if __name__ == "__main__":
    main()
