"""The log of a running job: backends write lines, the lease keeper takes them to the service."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from prebuilds.domain.builds import LogLevel
from prebuilds.provisioner_daemon.jobs import LogLine

MOST_PENDING: Final = 10_000
"""Lines kept while the service is away; what is beyond is lost, and a line says so."""

LONGEST_LINE: Final = 8 * 1024  # characters


class JobLog:
    """Lines counted from 1; each stays until the service has it."""

    def __init__(self) -> None:
        """Empty."""
        self._pending: deque[LogLine] = deque()
        self._next = 1
        self._lost = 0
        self._written = asyncio.Event()

    def write(self, text: str, *, level: LogLevel = LogLevel.INFO, stage: str = "") -> None:
        """Add a text, line by line. Must be called in the event loop's thread."""
        for line in text.splitlines() or [""]:
            if len(self._pending) >= MOST_PENDING:
                self._lost += 1
                continue
            if self._lost:
                self._append(f"{self._lost} lines were lost", LogLevel.WARN, "")
                self._lost = 0
            self._append(line[:LONGEST_LINE], level, stage)
        self._written.set()

    def pending(self, most: int) -> Sequence[LogLine]:
        """The oldest lines that the service does not have."""
        return [self._pending[index] for index in range(min(most, len(self._pending)))]

    def confirm(self, lines: Sequence[LogLine]) -> None:
        """Forget lines that the service has."""
        if lines:
            while self._pending and self._pending[0].sequence <= lines[-1].sequence:
                self._pending.popleft()
        if not self._pending:
            self._written.clear()

    async def written(self) -> None:
        """Wait until there are lines."""
        await self._written.wait()

    def _append(self, text: str, level: LogLevel, stage: str) -> None:
        # What programs print may hold NUL, which the service takes in no text.
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        self._pending.append(LogLine(self._next, datetime.now(UTC), level, stage, text))
        self._next += 1
