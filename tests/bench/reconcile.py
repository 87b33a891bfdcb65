"""`make bench NAME=reconcile`: passes over many pools (issue 4; design section 10).

The reconciler is the program as it is shipped, a process of its own, on a real Postgres and a real NATS server; passes
are those that `PoolService.ReconcileNow` runs. A time is from the call to its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from prebuilds.v1 import pool_pb2
from tests.bench.floors import measure_floors
from tests.bench.pools import IN_PLACE, PREBUILDS, UNEVEN, WITH_SCHEDULES, Pools
from tests.bench.programs import Program, open_programs
from tests.bench.report import Report, progress
from tests.bench.servers import SETTINGS, Servers, open_servers
from tests.bench.watching import most_at_once, watch_statements
from tests.support.waiting import eventually

REPLICAS = 3
WITH_WORK = 20
"""One in so many has work in the mix."""
PATIENCE = 120  # seconds


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    small: int = 1_000
    """Presets."""
    large: int = 10_000
    contended: int = 1_000
    contended_per_template: int = 250
    passes: int = 15
    rounds: int = 3
    """Of everything that changes something."""


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench NAME=reconcile ARGS=...", description=__doc__)
    parser.add_argument("--small", type=int, default=Sizes.small, help="presets of the small idle pass and the creates")
    parser.add_argument("--large", type=int, default=Sizes.large, help="presets of the large idle pass and the mix")
    parser.add_argument("--contended", type=int, default=Sizes.contended, help="presets that three replicas fill")
    parser.add_argument("--passes", type=int, default=Sizes.passes, help="idle passes that the median is of")
    parser.add_argument("--rounds", type=int, default=Sizes.rounds, help="the same of everything else")
    given = parser.parse_args(arguments)
    sizes = Sizes(given.small, given.large, given.contended, passes=given.passes, rounds=given.rounds)
    asyncio.run(run(sizes)).print()


async def run(sizes: Sizes) -> Report:
    """Measure everything, on servers of this run."""
    shipped = ", ".join(f"{name}={value}" for name, value in SETTINGS.items())
    report = Report(f"Passes of the reconciler; Postgres writes to disk, as the laptop stack's: {shipped}")
    with open_servers() as servers:
        small = _make(servers, "small", sizes.small)
        large = _make(servers, "large", sizes.large)
        few = _make(servers, "few_templates", sizes.contended, sizes.contended_per_template)
        report.remark("Floors of this machine")
        with progress("floors"):
            measure_floors(report, large.url, created=sizes.small * PREBUILDS)
        report.remark("One reconciler")
        await _measure_small(report, servers, small, sizes)
        await _measure_large(report, servers, large, sizes)
        report.remark(f"{REPLICAS} reconcilers")
        await _measure_contention(report, servers, few, sizes)
    return report


def _make(servers: Servers, name: str, presets: int, presets_per_template: int = 10) -> Pools:
    with progress(f"making {presets:,} presets"):
        pools = Pools(servers.create_database(name), presets, presets_per_template)
        pools.make()
    return pools


async def _measure_small(report: Report, servers: Servers, pools: Pools, sizes: Sizes) -> None:
    async with open_programs(servers, pools.url) as (program,):
        with progress(f"idle passes over {pools.presets:,} presets"):
            await _measure_idle(report, program, pools, "idle_pass_1000", sizes.passes)
            statements = await _count_statements(servers, pools, program)
        report.count("statements_per_pass_1000", "statements of that pass", statements)
        times: list[float] = []
        with progress("passes that create"):
            for _ in range(sizes.rounds):
                wanted = pools.claim()
                pools.settle()
                took, statistics = await _timed(program)
                assert statistics.created == wanted == pools.wanted, statistics
                times.append(took)
                await _check(program, pools)
                pools.finish()
        report.seconds(
            "create_5000_s", f"pass that creates {pools.wanted:,} prebuilds of {pools.presets:,} presets", times
        )


async def _measure_large(report: Report, servers: Servers, pools: Pools, sizes: Sizes) -> None:
    async with open_programs(servers, pools.url) as (program,):
        with progress(f"idle passes over {pools.presets:,} presets"):
            await _measure_idle(report, program, pools, "idle_pass_10000", sizes.passes)
            statements = await _count_statements(servers, pools, program)
        report.count("statements_per_pass", "statements of that pass", statements, "BEGIN and COMMIT included")
        report.count("presets_with_schedules", "presets with two schedules", pools.count(WITH_SCHEDULES))
        times: list[float] = []
        with progress("passes of the mix"):
            for _ in range(sizes.rounds):
                expired = _make_work(pools)
                took, statistics = await _timed(program)
                _check_mix(statistics, pools, expired)
                times.append(took)
                await _check(program, pools)
                pools.finish()
        with progress("one more, to see what it uses"):
            expired = _make_work(pools)
            with watch_statements(pools.url, servers.postgres.log_file) as seen:
                statistics = await program.reconcile()
            _check_mix(statistics, pools, expired)
        done = f"{statistics.created:,} created, {statistics.deleted:,} deleted"
        report.seconds("mix_pass_s", f"pass in which 1 of {WITH_WORK} presets has work", times, done)
        report.count("presets_reconciled", "presets reconciled in it", statistics.presets_reconciled)
        connections = most_at_once(seen.of_passes())
        others = f"{most_at_once(seen.transactions)} with all else that the program does meanwhile"
        report.count("connections", "connections that passes used at most, of 10", connections, others)


def _make_work(pools: Pools) -> int:
    """Give one in twenty presets work: all of these lack two, some have an expired one; how many expired."""
    pools.claim(claims=2, every=WITH_WORK)
    expired = pools.expire(every=WITH_WORK)
    pools.settle()
    return expired


def _check_mix(statistics: pool_pb2.PassStatistics, pools: Pools, expired: int) -> None:
    assert statistics.presets_reconciled == pools.presets // WITH_WORK, statistics
    assert statistics.deleted == expired, statistics


async def _measure_contention(report: Report, servers: Servers, pools: Pools, sizes: Sizes) -> None:
    templates = max(1, pools.presets // pools.presets_per_template)
    times: list[float] = []
    shares: list[str] = []
    async with open_programs(servers, pools.url, REPLICAS) as programs:
        with progress(f"{REPLICAS} reconcilers on {pools.presets:,} presets of {templates} templates"):
            for _ in range(sizes.rounds):
                pools.claim()
                pools.settle()
                began = time.perf_counter()
                passes = await asyncio.gather(*(program.reconcile() for program in programs))
                # What one of them found held by another is done by a later pass, where it still has to be.
                await eventually(lambda: pools.count(IN_PLACE) == pools.wanted, PATIENCE, what="all pools are full")
                times.append(time.perf_counter() - began)
                shares.append("+".join(str(statistics.created) for statistics in passes))
                for program in programs:
                    await _check(program, pools)
                pools.finish()
    made = f"created {', '.join(shares)}"
    report.seconds(
        "contention_pass_s", f"until {pools.wanted:,} prebuilds of {templates} templates are made", times, made
    )
    report.count("contention_presets", "presets of those", pools.presets)


async def _measure_idle(report: Report, program: Program, pools: Pools, name: str, passes: int) -> None:
    first = program.first_pass()
    assert first is not None
    report.seconds(f"first_{name}_s", f"first pass over {pools.presets:,} presets, cold", [first])
    times: list[float] = []
    for _ in range(passes):
        took, statistics = await _timed(program)
        assert statistics.presets_seen == pools.presets, statistics
        assert statistics.presets_reconciled == statistics.presets_failed == 0, statistics
        times.append(took)
    report.seconds(f"{name}_s", f"idle pass over {pools.presets:,} presets", times)


async def _count_statements(servers: Servers, pools: Pools, program: Program) -> int:
    with watch_statements(pools.url, servers.postgres.log_file) as seen:
        await program.reconcile()
    return sum(len(each.statements) for each in seen.of_passes())


async def _timed(program: Program) -> tuple[float, pool_pb2.PassStatistics]:
    began = time.perf_counter()
    statistics = await program.reconcile()
    return time.perf_counter() - began, statistics


async def _check(program: Program, pools: Pools) -> None:
    """Nothing is left to do, no pool has more or less than it wants, and nothing went wrong on the way."""
    statistics = await program.reconcile()
    assert statistics.presets_reconciled == statistics.presets_held_elsewhere == 0, statistics
    assert pools.count(UNEVEN) == 0
    assert not program.errors(), program.errors()[:3]
