"""A template of two versions and everybody who changes its pools at the same time, each by the product's own code.

Replicas of a service are played by sets of connections of their own: what they share is Postgres, as in life.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from prebuilds.chassis.caller import Caller
from prebuilds.claims.attempts import Attempt, MissedError
from prebuilds.claims.claiming import claim_or_build
from prebuilds.claims.queries.naming import Named
from prebuilds.claims.queries.offers import Owner, Preset, Template
from prebuilds.claims.wishes import Plan, Wish
from prebuilds.domain.builds import BuildOutcome, FailureClass
from prebuilds.domain.claims import ClaimMode
from prebuilds.domain.ids import JobId, TemplateId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.domain.principals import Person
from prebuilds.domain.refusals import Refusal
from prebuilds.reconciler.hints import Hints
from prebuilds.reconciler.invalidating import Invalidating, InvalidationOrder
from prebuilds.reconciler.outcomes import PassStatistics
from prebuilds.reconciler.passes import Reconciler
from prebuilds.reconciler.pausing import PauseTarget, Pausing
from prebuilds.reconciler.promoting import Promoting
from prebuilds.reconciler.pushing import Pushing, PushOrder
from prebuilds.reconciler.queries.pools import Extent
from prebuilds.reconciler.queries.views import PauseScope
from prebuilds.reconciler.retention import Retention
from prebuilds.reconciler.retiring import Retiring
from prebuilds.store.audit import Actor
from prebuilds.store.database import Database, open_database
from prebuilds.store.jobs.finishing import BuildResult, finish_build, lock_job
from prebuilds.store.pool.filling import PoolKey, mark_deleting
from prebuilds.store.pool.readiness import refresh_readiness
from prebuilds.store.requests import RequestKey
from tests.support.builders import make_organization, make_user
from tests.support.claims import live_gateway
from tests.support.pools import make_reconciler
from tests.support.reconciling import make_archive, make_manifest

ORGANIZATION: Final = "acme"
TTL: Final = timedelta(hours=1)

_COUNT: Final = b"""
SELECT
    p.id,
    count(*) FILTER (
        WHERE b.state = 'running' AND b.delete_marked_at IS NULL AND b.created_at + p.ttl >= now()
            AND (p.last_invalidated_at IS NULL OR b.created_at >= p.last_invalidated_at)
    ) AS kept,
    count(*) FILTER (WHERE b.state = 'starting') AS starting
FROM presets AS p
LEFT JOIN prebuilds AS b ON b.preset_id = p.id
WHERE p.template_id = %(template_id)s
GROUP BY p.id
"""
_FAULTS: Final[Mapping[str, bytes]] = {
    "claimed twice": b"SELECT workspace_id FROM claims GROUP BY workspace_id HAVING count(*) > 1",
    "claimed, and still in a pool": b"SELECT workspace_id FROM prebuilds JOIN claims USING (workspace_id)",
    "claimed, and deleted, stopped or canceled by the system": b"""
        SELECT b.workspace_id
        FROM builds AS b
        JOIN claims AS c USING (workspace_id)
        JOIN users AS u ON u.id = b.initiator_id AND u.is_system
        WHERE b.transition <> 'start' OR b.number > 1 OR b.outcome IS DISTINCT FROM 'succeeded'
    """,
    "claimed, and not its owner's": b"""
        SELECT w.id FROM workspaces AS w JOIN claims AS c ON c.workspace_id = w.id
        WHERE w.deleted OR w.owner_id <> c.user_id OR w.claim_generation <> 1
    """,
    "in a pool, and not the system's": b"""
        SELECT w.id
        FROM prebuilds AS p JOIN workspaces AS w ON w.id = p.workspace_id JOIN users AS u ON u.id = w.owner_id
        WHERE w.deleted OR NOT u.is_system
    """,
    "half made": b"""
        SELECT p.workspace_id
        FROM prebuilds AS p
        JOIN workspaces AS w ON w.id = p.workspace_id
        LEFT JOIN builds AS b ON b.id = w.latest_build_id
        LEFT JOIN jobs AS j ON j.build_id = b.id
        WHERE j.id IS NULL
            OR (p.state = 'deleting') <> (b.transition = 'delete' AND b.outcome IS NULL)
            OR p.state = 'deleting' AND p.delete_marked_at IS NULL
            OR p.state = 'starting' AND NOT (b.transition = 'start' AND b.outcome IS NULL)
            OR NOT EXISTS (SELECT FROM agents AS a WHERE a.workspace_id = w.id)
    """,
    "two unfinished builds": b"""
        SELECT workspace_id FROM builds WHERE outcome IS NULL GROUP BY workspace_id HAVING count(*) > 1
    """,
}
"""What must never be found, by what it would be."""


@dataclass(frozen=True, slots=True)
class PoolCount:
    """What a pool holds by what it is filled by."""

    kept: int
    """Running, unmarked and unexpired."""
    starting: int

    @property
    def places(self) -> int:
        """How many places of the target are taken."""
        return self.kept + self.starting


@dataclass
class Replica:
    """A reconciler with connections of its own, and what it still has to look at."""

    database: Database
    hints: Hints = field(default_factory=Hints)

    def __post_init__(self) -> None:
        self.reconciler: Reconciler = make_reconciler(self.database, hints=self.hints)

    async def run(self, extent: Extent) -> PassStatistics:
        return await self.reconciler.run_pass(extent)


@dataclass(frozen=True)
class Contest:
    """One template, its two pools, and those who race for them."""

    database: Database
    claims: Sequence[Database]
    replicas: Sequence[Replica]
    admin: Caller
    alice: Person
    template: str
    pools: Sequence[PoolKey]
    versions: Sequence[UUID]
    instances: int

    @property
    def template_id(self) -> TemplateId:
        return self.pools[0].template_id

    @property
    def extent(self) -> Extent:
        """All pools of the template."""
        return Extent(template_ids=frozenset({self.template_id}))

    # Those who steer.

    async def promote(self, version: int) -> None:
        await Promoting(self.database).promote(self.admin, self.versions[version])

    async def deprecate(self, message: str) -> None:
        await Retiring(self.database).deprecate(self.admin, self.template_id, message)

    async def delete_template(self) -> None:
        await Retiring(self.database).delete(self.admin, self.template_id)

    async def invalidate(self) -> None:
        """All presets of the active version."""
        order = InvalidationOrder(ORGANIZATION, self.template, (), validate_only=False)
        await Invalidating(self.database).invalidate(self.admin, order)

    async def pause(self, scope: PauseScope, version: int = 0) -> PauseTarget:
        id_ = self.template_id if scope is PauseScope.TEMPLATE else self.pools[version].preset_id
        target = PauseTarget(scope, None if scope is PauseScope.DEPLOYMENT else id_)
        await Pausing(self.database).pause(self.admin, target, "a race")
        return target

    async def resume(self, target: PauseTarget) -> None:
        await Pausing(self.database).resume(self.admin, target)

    async def delete_by_hand(self, version: int, doomed: Collection[WorkspaceId]) -> None:
        """A template admin deletes prebuilds."""
        async with self.database.transaction("delete by hand") as tx:
            await mark_deleting(
                tx,
                self.pools[version],
                list(doomed),
                kind=PoolEventKind.DELETED,
                reason="by hand",
                initiator_id=self.admin.person().user_id,
            )

    async def age(self, workspace_ids: Collection[WorkspaceId]) -> None:
        """Let prebuilds be older than their time to live."""
        query = b"""
            UPDATE prebuilds SET created_at = created_at - %(by)s, expires_at = expires_at - %(by)s
            WHERE workspace_id IN (
                SELECT workspace_id FROM prebuilds WHERE workspace_id = ANY(%(ids)s) ORDER BY workspace_id FOR UPDATE
            )
        """
        async with self.database.transaction("age") as tx:
            await tx.run(query, {"ids": list(workspace_ids), "by": TTL + timedelta(seconds=1)})

    # Daemons, agents and gateways.

    async def jobs(self, transition: str = "start") -> list[JobId]:
        """The unfinished jobs of the template's prebuilds, oldest first."""
        query = b"""
            SELECT j.id
            FROM prebuilds AS p
            JOIN workspaces AS w ON w.id = p.workspace_id
            JOIN builds AS b ON b.id = w.latest_build_id
            JOIN jobs AS j ON j.build_id = b.id
            WHERE p.template_id = %(template_id)s AND b.transition = %(transition)s AND b.outcome IS NULL
            ORDER BY j.created_at, j.id
        """
        parameters = {"template_id": self.template_id, "transition": transition}
        async with self.database.read("test") as tx:
            return [JobId(id_) for id_ in await tx.fetch_all(query, parameters, row=UUID)]

    async def take(self, job_ids: Collection[JobId]) -> None:
        """A daemon takes those of these jobs that are still to be had."""
        query = b"""
            UPDATE jobs SET status = 'running', lease_id = gen_random_uuid(), attempt = 1
            WHERE id = ANY(%(ids)s) AND status = 'pending'
        """
        async with self.database.transaction("acquire") as tx:
            await tx.run(query, {"ids": list(job_ids)})

    async def complete(self, job_ids: Collection[JobId], outcome: BuildOutcome = BuildOutcome.SUCCEEDED) -> None:
        """Daemons end these builds, one after the other; what was started comes up and is connected."""
        failure = FailureClass.INFRASTRUCTURE if outcome is BuildOutcome.FAILED else None
        gateway = await live_gateway(self.database)
        for job_id in job_ids:
            async with self.database.transaction("complete") as tx:
                locked = await lock_job(tx, job_id)
                assert locked is not None
                workspace, job = locked
                if job.status in {"canceled", "succeeded", "failed"}:
                    continue
                await finish_build(tx, workspace, job, BuildResult(outcome, failure))
                ids = {"id": workspace.workspace_id, "gateway": gateway}
                await tx.run(b"UPDATE agents SET state = 'ready' WHERE workspace_id = %(id)s", ids)
                await tx.run(
                    b"UPDATE prebuilds SET gateways = ARRAY[%(gateway)s], disconnected_at = NULL"
                    b" WHERE workspace_id = %(id)s AND state = 'running'",
                    ids,
                )
                await refresh_readiness(tx, [workspace.workspace_id])

    # People.

    async def claim(self, version: int, claimer: int = 0) -> WorkspaceId | None:
        """Ask for a prebuild of this version's pool; None is a miss."""
        pool = self.pools[version]
        plan = Plan(
            organization_id=pool.organization_id,
            owner=Owner(self.alice.user_id, self.alice.name),
            template=Template(pool.template_id, self.template, "", None, "", pool.version_id, (), ()),
            version_id=pool.version_id,
            preset=Preset(pool.preset_id, pool.preset_name, is_default=True, has_pool=True, parameters={}),
            miss=None,
            values={},
            choices={},
            ttl=None,
            autostart="",
        )
        request_id = str(uuid4())
        wish = Wish(
            Named.of(ORGANIZATION),
            Named.of(self.template),
            None,
            {},
            request_id,
            None,
            ClaimMode.REQUIRE_WARM,
            None,
            None,
            request_id,
        )
        actor = Actor(f"person:{self.alice.user_id}", self.alice.name)
        key = RequestKey(pool.organization_id, actor.principal, "CreateWorkspace", request_id)
        attempt = Attempt(plan, wish, self.alice.user_id, actor, key, b"", wish.name, datetime.now(UTC))
        assert plan.preset is not None
        try:
            created = await claim_or_build(self.claims[claimer % len(self.claims)], attempt, plan.preset)
        except (MissedError, Refusal):
            return None
        return created.workspace.id

    # What there is.

    async def members(self, version: int, states: Sequence[str] = ("running",)) -> list[WorkspaceId]:
        """The unmarked prebuilds of a pool, oldest first."""
        query = b"""
            SELECT workspace_id FROM prebuilds
            WHERE preset_id = %(id)s AND delete_marked_at IS NULL AND state = ANY(%(states)s)
            ORDER BY created_at, workspace_id
        """
        parameters = {"id": self.pools[version].preset_id, "states": list(states)}
        async with self.database.read("test") as tx:
            return [WorkspaceId(id_) for id_ in await tx.fetch_all(query, parameters, row=UUID)]

    async def count(self) -> list[PoolCount]:
        """What each version's pool holds, all at one moment."""
        async with self.database.read("test") as tx:
            rows = await (await tx.run(_COUNT, {"template_id": self.template_id})).fetchall()
        found = {id_: PoolCount(kept, starting) for id_, kept, starting in rows}
        return [found[pool.preset_id] for pool in self.pools]

    async def check(self) -> None:
        """Nothing is there that must never be."""
        for fault, query in _FAULTS.items():
            async with self.database.read("test") as tx:
                found = await tx.fetch_all(query, row=UUID)
            assert not found, f"{fault}: {found}"

    async def settle(self, active: int | None) -> None:
        """One quiet pass brings every pool to its target, and the next finds nothing to do (invariant 5)."""
        for replica in self.replicas:
            replica.hints.take()
        before = await self.count()
        first = await self.replicas[0].run(self.extent)
        assert (first.held_elsewhere, first.failed) == (0, 0), first
        for version, counted in enumerate(await self.count()):
            target = self.instances if version == active else 0
            assert counted.kept <= target, (version, counted)
            assert target <= counted.places <= max(target, before[version].starting), (version, before, counted)
        second = await self.replicas[-1].run(self.extent)
        assert (second.reconciled, second.created, second.deleted, second.canceled) == (0, 0, 0, 0), second


@dataclass(frozen=True)
class Ring:
    """Where contests are held: one database, and connections for all that take part."""

    database: Database
    claims: Sequence[Database]
    replicas: Sequence[Replica]
    admin: Caller
    alice: Person

    async def contest(self, instances: int) -> Contest:
        """A new template of two versions, of which the first is active."""
        name = f"t-{uuid4().hex[:8]}"
        presets = [{"name": "p", "prebuilds": {"instances": instances, "expiration_policy": {"ttl": 3600}}}]
        archive = make_archive(make_manifest(name, presets=presets))
        pushed = [
            await Pushing(self.database).push(
                self.admin,
                PushOrder(ORGANIZATION, "", archive, "", activate=False, validate_only=False, request_id=""),
            )
            for _ in range(2)
        ]
        pools = [
            PoolKey(each.version.organization_id, each.template.id, each.version.id, each.presets[0].id, "p")
            for each in pushed
        ]
        return Contest(
            self.database,
            self.claims,
            self.replicas,
            self.admin,
            self.alice,
            name,
            pools,
            [each.version.id for each in pushed],
            instances,
        )

    async def stay_live(self) -> None:
        """The gateway goes on living."""
        await live_gateway(self.database)
        async with self.database.transaction("refresh gateway") as tx:
            await tx.run(b"UPDATE gateways SET seen_at = now()")


@asynccontextmanager
async def open_ring(database: Database, database_url: str, *, replicas: int = 2) -> AsyncGenerator[Ring]:
    organization_id = await make_organization(database, ORGANIZATION)
    admin = Person(await make_user(database, "root"), "root", {organization_id: frozenset()}, is_operator=True)
    alice = Person(await make_user(database, "alice"), "alice", {organization_id: frozenset()})
    async with AsyncExitStack() as stack:

        async def connect(name: str, size: int) -> Database:
            return await stack.enter_async_context(
                open_database(database_url, pool_size=size, min_size=1, application_name=name)
            )

        ring = Ring(
            await connect("actor", 6),
            [await connect(f"claims-{number}", 3) for number in range(2)],
            [Replica(await connect(f"replica-{number}", 4)) for number in range(replicas)],
            Caller(admin),
            alice,
        )
        await ring.stay_live()
        yield ring


async def retain(replica: Replica) -> None:
    """Remove what failed at once."""
    await Retention(replica.database, keep_for=timedelta(0)).run_once()
