"""Processes of the operating system."""

from __future__ import annotations

from pathlib import Path


def is_running(process: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for by its parent does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
