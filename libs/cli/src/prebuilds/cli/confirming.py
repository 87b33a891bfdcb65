"""Asking before something is done that cannot be taken back."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from prebuilds.cli.connection import EXIT_USAGE, fail

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking; needed where nobody can be asked.")]


def confirm(question: str) -> None:
    """Ask on the terminal; anything but yes ends the program with 1, and with 2 where there is no terminal."""
    if not sys.stdin.isatty():
        fail(f"{question} Nobody can be asked here: say --yes", EXIT_USAGE)
    if not typer.confirm(question, err=True):
        fail("nothing was done")
