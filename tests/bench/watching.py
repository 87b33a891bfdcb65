"""What Postgres itself sees of the programs: the statements that they send and the connections that they use for them.

It is made to log every statement with its session, so this is for passes that nobody measures the time of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import psycopg

PROGRAM: Final = "prebuilds-reconciler"
LOG_LINE_PREFIX: Final = "<%a %c %m> "
_LINE: Final = re.compile(r"<(?P<program>\S*) (?P<session>\S+) (?P<at>[-0-9]+ [.:0-9]+) \S+> LOG:  (?P<text>.*)")
_STATEMENT: Final = re.compile(r"(?:statement|execute [^:]*): (?P<text>.*)")
_END: Final = frozenset({"COMMIT", "ROLLBACK"})
_OF_A_PASS: Final = (
    "-- Survey these pools",
    "-- Lock a preset for the work on its pool and put down when",
    "-- Which of these presets somebody has seen to",
)
"""How the statements begin that only passes send, one of them in each of their transactions."""
_SETTLED: Final = 0.05  # seconds


@dataclass(slots=True)
class LoggedTransaction:
    """A transaction of a program: the first lines of its statements, BEGIN and COMMIT included, and when it ran."""

    began: datetime
    ended: datetime
    statements: list[str]

    @property
    def is_over(self) -> bool:
        """Whether its last statement is one that ends it."""
        return self.statements[-1] in _END or not self.statements[0].startswith("BEGIN")

    @property
    def is_of_a_pass(self) -> bool:
        """Whether a pass has opened it."""
        return any(text.startswith(_OF_A_PASS) for text in self.statements)


@dataclass(slots=True)
class Statements:
    """The transactions of the programs."""

    transactions: list[LoggedTransaction] = field(default_factory=list[LoggedTransaction])

    def of_passes(self) -> list[LoggedTransaction]:
        """Those of passes."""
        return [each for each in self.transactions if each.is_of_a_pass]


def most_at_once(transactions: list[LoggedTransaction]) -> int:
    """How many of these were open at once at most: so many connections they used."""
    edges = [(each.began, 1) for each in transactions] + [(each.ended, -1) for each in transactions]
    # Where one ends as another begins, the end comes first: its connection is free.
    open_now = most = 0
    for _, change in sorted(edges):
        open_now += change
        most = max(most, open_now)
    return most


@contextmanager
def watch_statements(url: str, log: Path) -> Generator[Statements]:
    """Let Postgres log every statement while the block runs; the statements are there after it."""
    seen = Statements()
    with psycopg.connect(url, autocommit=True, application_name="watcher") as connection:
        _set_logging(connection, statements="all", duration="on")
        begin = log.stat().st_size
        try:
            yield seen
        finally:
            _set_logging(connection, statements="none", duration="off")
    with log.open() as lines:
        lines.seek(begin)
        seen.transactions.extend(_transactions(lines))


def _set_logging(connection: psycopg.Connection, *, statements: str, duration: str) -> None:
    connection.execute(f"ALTER SYSTEM SET log_statement = '{statements}'".encode())
    connection.execute(f"ALTER SYSTEM SET log_duration = '{duration}'".encode())
    connection.execute("SELECT pg_reload_conf()")
    while connection.execute("SHOW log_duration").fetchone() != (duration,):
        time.sleep(_SETTLED)
    # The other sessions were told at the same moment and look before their next statement.
    time.sleep(_SETTLED)


def _transactions(lines: Iterator[str]) -> Iterator[LoggedTransaction]:
    running: dict[str, LoggedTransaction] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None or match["program"] != PROGRAM:
            continue
        session, at = match["session"], datetime.fromisoformat(match["at"])
        statement = _STATEMENT.match(match["text"])
        known = running.get(session)
        if statement is not None:
            known = running.setdefault(session, LoggedTransaction(at, at, []))
            known.statements.append(statement["text"].strip())
        elif known is not None and match["text"].startswith("duration"):
            known.ended = at
            if known.is_over:
                yield running.pop(session)
    yield from running.values()
