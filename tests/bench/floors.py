"""What this machine can do without any of our code: the floors that figures are read beside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

import psycopg

from tests.bench.report import Report

_HERE: Final = Path(__file__).parent
_JOB: Final = b"""
INSERT INTO floor_jobs (id, organization_id, workspace_id, build_id, backend, priority)
VALUES (%(id)s, %(id)s, %(id)s, %(id)s, 'process', 1)
"""


def measure_floors(report: Report, url: str, *, rounds: int = 200, created: int = 5000) -> None:
    """Add the floors of this database: it must be one of pools, and is as before afterwards."""
    with psycopg.connect(url, autocommit=True) as connection:
        report.seconds("floor_round_trip_s", "SELECT 1", _times(rounds, lambda: connection.execute("SELECT 1")))
        connection.execute("CREATE TABLE floor_jobs (LIKE jobs INCLUDING ALL)")
        inserts = _times(rounds, lambda: connection.execute(_JOB, {"id": uuid4()}))
        connection.execute("DROP TABLE floor_jobs")
        report.seconds("floor_insert_job_s", "INSERT of one job, committed", inserts)
        aggregate = "SELECT preset_id, count(*), min(created_at) FROM prebuilds GROUP BY preset_id"
        times = _times(5, lambda: connection.execute(aggregate).fetchall())
        report.seconds("floor_aggregate_s", "SELECT that counts all prebuilds by preset", times)
    with psycopg.connect(url, cursor_factory=psycopg.ClientCursor) as connection:
        began = time.perf_counter()
        connection.execute((_HERE / "bare_create.sql").read_bytes(), {"created": created})
        took = time.perf_counter() - began
        connection.rollback()
    report.seconds("floor_create_s", f"all rows of {created:,} prebuilds in one statement each", [took])


def _times(rounds: int, work: Callable[[], object]) -> list[float]:
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times
