"""What Postgres itself sees of the programs: the connections that they use, and the statements that they send."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

PROGRAM: Final = "prebuilds-reconciler"
_EVERY: Final = 0.01  # seconds
_BUSY: Final = b"""
SELECT split_part(query, chr(10), 1)
FROM pg_stat_activity
WHERE application_name = %(program)s AND datname = current_database() AND state <> 'idle'
    AND xact_start <= statement_timestamp()
"""
"""All at one instant, that of this statement's begin; its rows are read one after the other."""
_OPEN: Final = (
    b"SELECT count(*) FROM pg_stat_activity WHERE application_name = %(program)s AND datname = current_database()"
)
_OF_THE_RELAY: Final = ("-- Remove events", "-- Lease the oldest events", "-- The age of the oldest event")
"""How the statements begin that the relay sends, whatever passes do."""
_LINE: Final = re.compile(r"<(?P<program>[^ >]*) (?P<session>[^>]+)> LOG:  (?:statement|execute [^:]*): (?P<text>.*)")


@dataclass(slots=True)
class Connections:
    """Most connections of the programs that were seen in use at once."""

    busy: int = 0
    """All of them: passes, the relay, requests."""
    in_passes: int = 0
    """Without those that only the relay uses."""
    then: list[str] = field(default_factory=list[str])
    """What those of passes were doing at that moment."""
    open: int = 0
    samples: int = 0


@contextmanager
def watch_connections(url: str) -> Generator[Connections]:
    """Look every 10 ms while the block runs."""
    seen, ended = Connections(), threading.Event()

    def watch() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute(_OPEN, {"program": PROGRAM}).fetchone()
            seen.open = row[0] if row else 0
            while not ended.wait(_EVERY):
                busy = [text for (text,) in connection.execute(_BUSY, {"program": PROGRAM})]
                of_passes = [text for text in busy if not text.startswith(_OF_THE_RELAY)]
                if len(of_passes) > seen.in_passes:
                    seen.in_passes, seen.then = len(of_passes), of_passes
                seen.busy = max(seen.busy, len(busy))
                seen.samples += 1

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


@dataclass(slots=True)
class Statements:
    """The transactions of the programs, each as the first lines of its statements, BEGIN and COMMIT included."""

    transactions: list[list[str]] = field(default_factory=list[list[str]])

    def of_passes(self) -> list[list[str]]:
        """The transactions of passes: each begins with the moment that it is about."""
        return [each for each in self.transactions if any("moment of this transaction" in text for text in each)]


@contextmanager
def watch_statements(url: str, log: Path) -> Generator[Statements]:
    """Let Postgres log every statement while the block runs; the statements are there after it."""
    seen = Statements()
    with psycopg.connect(url, autocommit=True, application_name="watcher") as connection:
        _set_logging(connection, "all")
        begin = log.stat().st_size
        try:
            yield seen
        finally:
            _set_logging(connection, "none")
    with log.open() as lines:
        lines.seek(begin)
        seen.transactions.extend(_transactions(lines))


def _set_logging(connection: psycopg.Connection, what: str) -> None:
    connection.execute(f"ALTER SYSTEM SET log_statement = '{what}'".encode())
    connection.execute("SELECT pg_reload_conf()")
    while connection.execute("SHOW log_statement").fetchone() != (what,):
        time.sleep(_EVERY)
    # The other sessions were told at the same moment and look before their next statement.
    time.sleep(5 * _EVERY)


def _transactions(lines: Iterator[str]) -> Iterator[list[str]]:
    running: defaultdict[str, list[str]] = defaultdict(list)
    for line in lines:
        match = _LINE.match(line)
        if match is None or match["program"] != PROGRAM:
            continue
        session, text = match["session"], match["text"].strip()
        running[session].append(text)
        is_alone = len(running[session]) == 1 and not text.startswith("BEGIN")
        if is_alone or text.split(";")[0] in {"COMMIT", "ROLLBACK"}:
            yield running.pop(session)


def tally(transactions: list[list[str]]) -> Counter[str]:
    """How often which statement was sent."""
    return Counter(text for each in transactions for text in each)
