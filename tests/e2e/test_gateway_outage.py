"""A real agent through an outage of the real gateway: its prebuild is kept, and is to be had again afterwards."""

from __future__ import annotations

from prebuilds.embedded.stack import DATABASE
from prebuilds.reconciler.deaths import fail_disconnected
from prebuilds.store.database import Database, open_database
from tests.support.stack import RunningSystem
from tests.support.waiting import eventually

OUTAGE = "11 min"
"""Longer than a prebuild may be disconnected while some gateway lives."""


async def pass_time(database: Database, workspace_id: str) -> None:
    """Let what is on record of gateways, and of this prebuild's build, be older by the outage."""
    async with database.transaction("test") as tx:
        await tx.run(
            b"UPDATE gateways SET seen_at = seen_at - %(by)s::interval, live_since = live_since - %(by)s::interval",
            {"by": OUTAGE},
        )
        await tx.run(
            b"UPDATE builds SET finished_at = finished_at - %(by)s::interval WHERE workspace_id = %(id)s::uuid",
            {"by": OUTAGE, "id": workspace_id},
        )


async def test_an_agent_outlives_a_long_outage_of_every_gateway(system: RunningSystem) -> None:
    name = await system.warm_pool()
    query = """
        SELECT p.workspace_id::text AS id, p.state, coalesce(p.gateways <@ array(
            SELECT g.id FROM gateways AS g WHERE g.seen_at > now() - interval '60 s'
        ), false) AS connected
        FROM prebuilds AS p JOIN templates AS t ON t.id = p.template_id WHERE t.name = %(name)s
    """
    (before,) = system.rows(query, name=name)
    process = system.agent_says(before["id"])["pid"]

    async with open_database(system.stack.postgres.url(DATABASE), pool_size=1) as database:
        with system.halted("agent-gateway"):
            await pass_time(database, before["id"])
            assert system.rows(query, name=name) == [{**before, "connected": False}]
            await fail_disconnected(database)
        await eventually(lambda: system.rows(query, name=name) == [before], 30, what="it is connected again")
        # It was live all that time only by its own word.
        await fail_disconnected(database)
        # And once more, with another process after it.
        system.kill("agent-gateway")
        await pass_time(database, before["id"])
        await fail_disconnected(database)
        await eventually(lambda: system.rows(query, name=name) == [before], 30, what="it is connected again")

    assert system.rows(query, name=name) == [before]
    assert system.agent_says(before["id"])["pid"] == process
