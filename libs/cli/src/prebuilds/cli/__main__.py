"""`prebuilds`: the command for template admins, developers and operators."""

from __future__ import annotations

from prebuilds.cli.app import app


def main() -> None:
    """Run the command line."""
    app(prog_name="prebuilds")


if __name__ == "__main__":
    main()
