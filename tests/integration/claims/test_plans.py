"""Plans of the hot statements: which index serves them, and in which order the claim locks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from prebuilds.domain.ids import UserId
from prebuilds.store.database import Database
from prebuilds.store.pool.filling import PoolKey
from prebuilds.store.sql import SqlFolder
from tests.support.builders import make_user
from tests.support.claims import ready_prebuilds

CLAIM = SqlFolder("prebuilds.store.pool")["claim"]


@pytest.fixture
async def alice(database: Database) -> UserId:
    return await make_user(database, "alice")


async def plan_of(database_url: str, pool: PoolKey, user_id: UserId, *, analyze: bool) -> dict[str, Any]:
    parameters = {
        "organization_id": pool.organization_id,
        "preset_id": pool.preset_id,
        **dict.fromkeys(("owner_id", "initiator_id"), user_id),
        **dict.fromkeys(("owner_name", "name", "principal", "principal_name", "method", "request_id"), "x"),
        "fingerprint": b"x",
        "requested_at": datetime.now(UTC),
        "parameters": Jsonb({}),
        "ttl": None,
        "autostart": "",
        **{name: uuid4() for name in ("build_id", "job_id", "claim_id", "claimed_event_id", "second_event_id")},
        "priority": 0,
        "traceparent": None,
    }
    explain = b"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " if analyze else b"EXPLAIN (FORMAT JSON) "
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("ANALYZE prebuilds, gateways, presets, templates, workspaces, builds")
        cursor = await connection.execute(explain + CLAIM, parameters)
        row = await cursor.fetchone()
        await connection.rollback()
    assert row is not None
    plans: list[dict[str, Any]] = row[0]
    return plans[0]["Plan"]


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    found = [plan]
    for child in plan.get("Plans", []):
        found += nodes(child)
    return found


async def test_the_claim_reads_one_prebuild_by_its_index(
    database: Database, database_url: str, pool: PoolKey, alice: UserId
) -> None:
    await _many(database, pool)

    plan = await plan_of(database_url, pool, alice, analyze=True)

    scans = [node for node in nodes(plan) if node.get("Relation Name") == "prebuilds" and "Scan" in node["Node Type"]]
    (choice,) = [node for node in scans if node.get("Index Name") == "ix_prebuilds_claimable"]
    assert choice["Node Type"] == "Index Scan"
    assert choice["Actual Rows"] == 1
    assert not [node for node in scans if node["Node Type"] == "Seq Scan"]
    assert not [node for node in nodes(plan) if node["Node Type"] == "Sort" and node["Actual Rows"] > 1]


async def test_each_locking_step_of_the_claim_reads_the_step_before_it(
    database: Database, database_url: str, pool: PoolKey, alice: UserId
) -> None:
    await _many(database, pool)

    plan = await plan_of(database_url, pool, alice, analyze=False)

    steps = {
        node["Subplan Name"].removeprefix("CTE "): nodes(node)
        for node in nodes(plan)
        if node.get("Subplan Name", "").startswith("CTE ")
    }
    reads = {name: {node["CTE Name"] for node in below if "CTE Name" in node} for name, below in steps.items()}
    assert "request" in reads["admitted"]
    assert "admitted" in reads["picked"]
    assert "picked" in reads["taken"]
    assert "taken" in reads["owned"]
    assert "owned" in reads["build"]
    assert "build" in reads["job"]
    assert "build" in reads["claim"]
    assert "owned" in reads["news"]


async def _many(database: Database, pool: PoolKey) -> None:
    """A pool, and many prebuilds of other presets around it."""
    (first, *_) = await ready_prebuilds(database, pool, 3)
    async with database.transaction("test") as tx:
        await tx.run(
            b"""
            WITH made AS (
                INSERT INTO workspaces (organization_id, owner_id, name, template_id)
                SELECT organization_id, owner_id, 'many-' || n, template_id
                FROM workspaces CROSS JOIN generate_series(1, 3000) AS n WHERE id = %(id)s
                RETURNING id, name
            )
            INSERT INTO prebuilds (
                workspace_id, organization_id, template_id, version_id, preset_id, state, ready_at, gateways
            )
            SELECT
                made.id, p.organization_id, p.template_id, p.version_id,
                CASE WHEN right(made.name, 1) = '0' THEN p.preset_id ELSE gen_random_uuid() END,
                'running', now(), p.gateways
            FROM made CROSS JOIN prebuilds AS p WHERE p.workspace_id = %(id)s
            """,
            {"id": first},
        )
