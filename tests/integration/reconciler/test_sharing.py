"""How replicas share the work of passes that begin together: what one has seen to the others pass over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from prebuilds.domain.ids import OrganizationId
from prebuilds.reconciler.outcomes import PassStatistics
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.planning import Snapshot
from prebuilds.reconciler.queries.pools import Extent, Taken, read_moment, take_preset
from prebuilds.reconciler.wakeups import EVERYTHING
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from tests.support.builders import make_organization, make_pool
from tests.support.pools import make_reconciler


@pytest_asyncio.fixture
async def organization(database: Database) -> OrganizationId:
    return await make_organization(database)


@pytest_asyncio.fixture
async def pool(database: Database, organization: OrganizationId) -> PoolKey:
    return await make_pool(database, organization, instances=2)


async def run_with(
    replica: Reconciler, patch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[object]]
) -> PassStatistics:
    """Run a pass, and something else between its snapshot and its work."""
    take_snapshot = replica.take_snapshot

    async def take_and_wait(extent: Extent) -> Snapshot:
        snapshot = await take_snapshot(extent)
        await meanwhile()
        return snapshot

    patch.setattr(replica, "take_snapshot", take_and_wait)
    return await replica.run_pass(EVERYTHING)


async def put_down(database: Database, pool: PoolKey, at: datetime) -> None:
    async with database.transaction("test") as tx:
        await tx.run(b"UPDATE presets SET reconciled_at = %(at)s WHERE id = %(id)s", {"at": at, "id": pool.preset_id})


async def now(database: Database) -> datetime:
    async with database.read("test") as tx:
        return (await read_moment(tx)).seen_at


async def test_what_another_replica_has_seen_to_is_passed_over(
    database: Database, pool: PoolKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, replica = make_reconciler(database), make_reconciler(database)
    theirs: list[PassStatistics] = []

    async def be_quicker() -> None:
        theirs.append(await other.run_pass(EVERYTHING))

    ours = await run_with(replica, monkeypatch, be_quicker)

    assert (theirs[0].reconciled, theirs[0].created) == (1, 2)
    assert (ours.seen, ours.skipped, ours.reconciled, ours.held_elsewhere, ours.created) == (1, 1, 0, 0, 0)


async def test_what_was_seen_to_before_the_snapshot_is_not(database: Database, pool: PoolKey) -> None:
    assert (await make_reconciler(database).run_pass(EVERYTHING)).created == 2
    async with database.transaction("test") as tx:
        await tx.run(b"UPDATE presets SET desired_instances = 3")

    assert (await make_reconciler(database).run_pass(EVERYTHING)).created == 1


async def test_what_failed_was_not_seen_to(database: Database, pool: PoolKey, monkeypatch: pytest.MonkeyPatch) -> None:
    other, replica = make_reconciler(database), make_reconciler(database)
    theirs: list[PassStatistics] = []

    async def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    with pytest.MonkeyPatch.context() as patch:

        async def be_quicker() -> None:
            patch.setattr("prebuilds.reconciler.passes.execute", fail)
            theirs.append(await other.run_pass(EVERYTHING))
            patch.undo()

        ours = await run_with(replica, monkeypatch, be_quicker)

    assert theirs[0].failed == 1
    assert (ours.reconciled, ours.created) == (1, 2)


@pytest.mark.parametrize(
    "later, taken",
    [(-1, Taken.LOCKED), (0, Taken.LOCKED), (1, Taken.SEEN_TO)],
    ids=["before the snapshot", "at its very moment", "after it"],
)
async def test_only_who_began_after_the_snapshot_has_seen_all_of_it(
    database: Database, pool: PoolKey, later: int, taken: Taken
) -> None:
    seen_at = await now(database)
    await put_down(database, pool, seen_at + later * timedelta(microseconds=1))

    async with database.transaction("test") as tx:
        assert await take_preset(tx, pool.preset_id, seen_at) is taken


async def test_the_mark_is_the_begin_of_the_transaction_and_stays_with_its_commit(
    database: Database, pool: PoolKey
) -> None:
    before = await now(database)

    async def give_up() -> None:
        async with database.transaction("test") as tx:
            assert await take_preset(tx, pool.preset_id, before) is Taken.LOCKED
            raise RuntimeError("given up")

    with pytest.raises(RuntimeError, match="given up"):
        await give_up()
    async with database.transaction("test") as tx:
        began = (await read_moment(tx)).at
        between = await now(database)
        assert await take_preset(tx, pool.preset_id, before) is Taken.LOCKED

    async with database.transaction("test") as tx:
        assert await take_preset(tx, pool.preset_id, between) is Taken.LOCKED, "it began before"
    await put_down(database, pool, began)
    async with database.transaction("test") as tx:
        assert await take_preset(tx, pool.preset_id, before) is Taken.SEEN_TO


async def test_a_preset_that_is_held_is_neither_taken_nor_seen_to(database: Database, pool: PoolKey) -> None:
    seen_at = await now(database)
    async with database.transaction("holder") as holder:
        assert await take_preset(holder, pool.preset_id, seen_at) is Taken.LOCKED
        async with database.transaction("test") as tx:
            assert await take_preset(tx, pool.preset_id, seen_at) is Taken.HELD
    async with database.transaction("test") as tx:
        assert await take_preset(tx, pool.preset_id, seen_at) is Taken.SEEN_TO


async def test_what_is_left_is_sifted_when_others_are_at_work(
    database: Database, organization: OrganizationId, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = 12
    for number in range(pools):
        await make_pool(database, organization, template=f"template-{number}", instances=1)
    other, replica = make_reconciler(database), make_reconciler(database, concurrency=1)
    tried: list[str] = []
    run = database.run

    async def counted(name: str, *arguments: Any, **named: Any) -> Any:
        tried.append(name)
        return await run(name, *arguments, **named)

    async def be_quicker() -> None:
        await other.run_pass(EVERYTHING)
        monkeypatch.setattr(database, "run", counted)

    ours = await run_with(replica, monkeypatch, be_quicker)

    assert (ours.seen, ours.skipped, ours.created) == (pools, pools, 0)
    assert len(tried) == 1, "one was tried, and told of the others"
