"""Somebody's terminal, in which the command line is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

COMMAND: Final = [sys.executable, "-m", "prebuilds.cli"]


class Shell:
    """Somebody's terminal; nothing of the tests' own environment that begins with PREBUILDS_ is in it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREBUILDS_")}
        self.environment = {**inherited, "HOME": str(folder), **variables}
        self.folder = folder

    def type(self, *words: str, stdin: int | None = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
        """Run a command and give what it said and how it ended."""
        return subprocess.run(
            [*COMMAND, *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            stdin=stdin,
        )

    def say(self, *words: str) -> str:
        """What a command that succeeds prints."""
        done = self.type(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(self, *words: str) -> Any:
        """What a command that succeeds prints for programs."""
        return json.loads(self.say(*words, "-o", "json"))

    def begin(self, *words: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a command that goes on; who starts it ends it."""
        return subprocess.Popen(
            [*COMMAND, *words],
            text=True,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
