"""Run one command as a named step: its name, its time, its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"


def environment() -> dict[str, str]:
    """Like setup.sh: uv loads no Python, and knows the certificates of the system."""
    ours = {"UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "1"}
    inherited = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return inherited | ours | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def run(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode


def timed(name: str, action: Callable[[], int]) -> int:
    print(f"== {name}", flush=True)
    began = time.monotonic()
    status = action()
    print(f"== {name}: {'ok' if status == 0 else f'FAILED ({status})'}, {time.monotonic() - began:.1f} s", flush=True)
    return status


def main(arguments: Sequence[str]) -> int:
    """One step announces itself first; what the command says last (pytest's summary) stays last."""
    name, *command = arguments
    print(f"== {name}", flush=True)
    return run(*command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
