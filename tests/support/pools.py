"""Passes over pools that are made by hand, without a service around them, and what they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.metrics import NoOpMeter
from sqlalchemy import insert, select, update

from prebuilds.domain.builds import BuildOutcome, FailureClass
from prebuilds.domain.ids import JobId, OrganizationId, PresetId, WorkspaceId
from prebuilds.domain.pools import PresetStatus
from prebuilds.events.bodies import to_hint, to_wire
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.outcomes import PassStatistics
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.queries.pools import Extent, PresetRow, read_presets
from prebuilds.reconciler.rules.planner import Config
from prebuilds.reconciler.wakeups import EVERYTHING, extent_of
from prebuilds.store import schema
from prebuilds.store.database import Database
from prebuilds.store.jobs.finishing import BuildResult, finish_build, lock_job
from prebuilds.store.outbox.rows import OutboxRow
from prebuilds.store.pool.filling import PoolKey
from tests.support.reconciling import Stage

IMPATIENT = Config(backoff_interval=timedelta(0))
"""Whose backoff ends with the moment of the failed build."""


def make_reconciler(
    database: Database,
    *,
    config: Config = IMPATIENT,
    hints: Hints | None = None,
    concurrency: int = 2,
    tick: timedelta = timedelta(),
) -> Reconciler:
    return Reconciler(
        database,
        hints or Hints(),
        config=config,
        lookback=timedelta(hours=1),
        concurrency=concurrency,
        meter=NoOpMeter("test"),
        tick=tick,
    )


@dataclass
class Passes:
    """A reconciler at one pool, with daemons played by hand."""

    database: Database
    pool: PoolKey
    config: Config = IMPATIENT
    hints: Hints = field(default_factory=Hints)

    @property
    def stage(self) -> Stage:
        return Stage(self.database)

    @property
    def preset_id(self) -> str:
        return str(self.pool.preset_id)

    async def run(self) -> PassStatistics:
        """One pass over everything."""
        return await make_reconciler(self.database, config=self.config, hints=self.hints).run_pass(EVERYTHING)

    async def jobs(self) -> Sequence[JobId]:
        """The starts that nobody has taken."""
        return await self.stage.jobs(self.preset_id)

    async def end(
        self,
        outcome: BuildOutcome = BuildOutcome.SUCCEEDED,
        failure_class: FailureClass | None = None,
        *,
        error: str = "",
        daily_cost: int | None = None,
        most: int | None = None,
    ) -> list[WorkspaceId]:
        """End the starts that are queued, at most so many."""
        ended: list[WorkspaceId] = []
        for job_id in (await self.jobs())[:most]:
            async with self.database.transaction("test") as tx:
                locked = await lock_job(tx, job_id)
                assert locked is not None
                result = BuildResult(outcome, failure_class, error=error, daily_cost=daily_cost)
                await finish_build(tx, *locked, result)
                ended.append(locked[0].workspace_id)
        return ended

    async def fail(self, failure_class: FailureClass = FailureClass.TEMPLATE, error: str = "broken") -> int:
        """Fail the starts that are queued."""
        return len(await self.end(BuildOutcome.FAILED, failure_class, error=error))

    async def fail_until_limited(self) -> None:
        """Three faults of the template, one after the other or together, and the pass that sees them."""
        for _ in range(self.config.hard_limit):
            await self.run()
            await self.fail()
        await self.run()
        assert (await self.preset()).status is PresetStatus.HARD_LIMITED

    async def preset(self) -> PresetRow:
        """The preset as stored."""
        async with self.database.read("test") as tx:
            (preset,) = await read_presets(tx, [self.pool.preset_id])
        return preset

    async def notifications(self) -> list[tuple[Any, ...]]:
        """What people were told: role, kind, subject, title and body."""
        row = schema.Notification
        columns = select(row.role, row.kind, row.subject_id, row.title, row.body)
        async with self.database.read("test") as tx:
            return [tuple(each) for each in await tx.execute(columns.order_by(row.created_at))]

    async def history(self) -> list[tuple[str, str]]:
        """Kind and reason of what happened to the pool."""
        row = schema.PoolEvent
        async with self.database.read("test") as tx:
            return [
                (each.kind.value, each.reason)
                for each in await tx.execute(select(row.kind, row.reason).order_by(row.id))
            ]

    async def make_older(self, by: timedelta) -> None:
        """Let all builds of the pool have been queued that much earlier."""
        row = schema.Build
        older = update(row).where(row.preset_id == self.pool.preset_id).values(created_at=row.created_at - by)
        async with self.database.transaction("test") as tx:
            await tx.execute(older)

    async def set_preset(self, **values: Any) -> None:
        async with self.database.transaction("test") as tx:
            await tx.execute(update(schema.Preset).where(schema.Preset.id == self.pool.preset_id).values(**values))

    async def set_template(self, **values: Any) -> None:
        async with self.database.transaction("test") as tx:
            await tx.execute(
                update(schema.Template).where(schema.Template.id == self.pool.template_id).values(**values)
            )


def pools_told_of(row: OutboxRow) -> Extent:
    """What the reconciler makes of an event."""
    wire = to_wire(row)
    hint = to_hint(wire.subject, wire.body, wire.headers)
    assert hint is not None
    return extent_of(hint)


async def make_neighbour(database: Database, pool: PoolKey, name: str, *, instances: int) -> PoolKey:
    """Another preset of the same version."""
    preset_id = PresetId(uuid4())
    values = {"id": preset_id, "name": name, "is_default": False, "desired_instances": instances}
    key = {name: getattr(pool, name) for name in ("organization_id", "template_id", "version_id")}
    async with database.transaction("test") as tx:
        await tx.execute(insert(schema.Preset).values(**key, **values))
    return replace(pool, preset_id=preset_id, preset_name=name)


async def allow(database: Database, organization_id: OrganizationId, allowance: int | None) -> None:
    """Set what the prebuilds of an organisation may cost."""
    group = schema.Group
    async with database.transaction("test") as tx:
        known = await tx.execute(
            update(group)
            .where(group.organization_id == organization_id, group.name == "prebuilds")
            .values(quota_allowance=allowance)
        )
        if not known.rowcount:
            await tx.execute(
                insert(group).values(organization_id=organization_id, name="prebuilds", quota_allowance=allowance)
            )


def count_tries(patch: pytest.MonkeyPatch, database: Database) -> list[str]:
    """The transactions that are begun from here on for the work on pools."""
    tries: list[str] = []
    run = database.run

    async def run_and_count(name: str, *arguments: Any, **named: Any) -> Any:
        tries.append(name)
        return await run(name, *arguments, **named)

    patch.setattr(database, "run", run_and_count)
    return tries
