"""The benchmark of passes, with few pools: it measures what it says and ends with one line of JSON."""

from __future__ import annotations

import json

import pytest

from tests.bench import __main__ as bench
from tests.bench.reconcile import Sizes, run

SIZES = Sizes(small=20, large=100, contended=24, contended_per_template=12, passes=3, rounds=1)


async def test_passes_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    report = await run(SIZES)
    report.print()

    *_, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    times = {
        "idle_pass_1000_s",
        "idle_pass_10000_s",
        "create_5000_s",
        "contention_pass_s",
        "mix_pass_s",
        "floor_round_trip_s",
        "floor_insert_job_s",
        "floor_aggregate_s",
        "floor_create_s",
    }
    assert all(figures[name] > 0 for name in times)
    assert figures["presets_reconciled"] == SIZES.large // 20
    assert figures["presets_with_schedules"] == SIZES.large // 5
    # Whatever the number of presets.
    assert figures["statements_per_pass"] == figures["statements_per_pass_1000"] > 0
    # Half of the ten that a program has.
    assert 0 < figures["connections"] <= 5


def test_without_a_name_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([]) == 0
    assert "reconcile" in capsys.readouterr().out
    assert bench.main(["nothing"]) == 2
