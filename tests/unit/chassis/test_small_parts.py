"""Deadline, addresses, cache, settings of one line each."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from prebuilds.chassis import deadline
from prebuilds.chassis.addresses import Addresses, join_address, split_address, write_addresses
from prebuilds.chassis.identity.cache import Cache
from tests.support.clock import ManualClock


def test_without_a_deadline_nothing_remains_to_be_told() -> None:
    assert deadline.remaining() is None


async def test_a_deadline_holds_for_its_task_and_what_that_starts() -> None:
    async def left() -> timedelta | None:
        return deadline.remaining()

    async def with_deadline(seconds: float) -> timedelta | None:
        deadline.end_in(seconds)
        return await asyncio.create_task(left())

    remains = await asyncio.create_task(with_deadline(5))

    assert remains is not None
    assert timedelta(0) < remains <= timedelta(seconds=5)
    assert await asyncio.create_task(with_deadline(-1)) == timedelta(0)
    assert deadline.remaining() is None


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:7080", "db.example:5432"])
def test_an_address_is_split_and_joined_again(address: str) -> None:
    assert join_address(*split_address(address)) == address


@pytest.mark.parametrize("address", ["", "host", ":80", "host:", "host:x", "host:65536", "::1:80"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="must"):
        split_address(address)


def test_the_file_of_addresses_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "addresses.json"
    write_addresses(path, Addresses(grpc="127.0.0.1:1", metrics=None))
    assert json.loads(path.read_text()) == {"grpc": "127.0.0.1:1"}
    assert list(tmp_path.iterdir()) == [path]


class Loads:
    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> tuple[float, int]:
        self.count += 1
        await self.gate.wait()
        return 10.0, self.count


async def test_a_value_is_loaded_once_for_all_who_ask_and_again_when_it_has_aged() -> None:
    clock, load = ManualClock(), Loads()
    cache: Cache[str, int] = Cache(size=2, clock=clock)
    asking = [asyncio.ensure_future(cache.get("a", load)) for _ in range(5)]
    load.gate.set()
    assert await asyncio.gather(*asking) == [1] * 5
    clock.advance(timedelta(seconds=9))
    assert cache.known("a") == 1
    clock.advance(timedelta(seconds=1))
    assert cache.known("a") is None
    assert await cache.get("a", load) == 2


async def test_who_asked_first_may_leave_without_harm_to_the_others() -> None:
    load = Loads()
    cache: Cache[str, int] = Cache(size=2, clock=ManualClock())
    first, second = asyncio.ensure_future(cache.get("a", load)), asyncio.ensure_future(cache.get("a", load))
    await asyncio.sleep(0)
    first.cancel()
    load.gate.set()
    assert await second == 1
    assert load.count == 1


async def test_a_failed_load_is_not_remembered() -> None:
    cache: Cache[str, int] = Cache(size=2, clock=ManualClock())

    async def fails() -> tuple[float, int]:
        raise OSError("away")

    async def works() -> tuple[float, int]:
        return 1.0, 7

    with pytest.raises(OSError, match="away"):
        await cache.get("a", fails)
    assert await cache.get("a", works) == 7


async def test_the_least_recently_used_goes_first() -> None:
    cache: Cache[str, str] = Cache(size=2, clock=ManualClock())

    async def load() -> tuple[float, str]:
        return 10.0, "v"

    for key in ("a", "b", "a", "c"):
        await cache.get(key, load)
    assert (cache.known("a"), cache.known("b"), cache.known("c")) == ("v", None, "v")
