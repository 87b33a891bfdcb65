"""An organisation that is deleted while somebody works in it, each held at its steps for the other.

Whoever comes first: nobody waits for each other in a ring, and a deleted organisation holds nothing that lives. In the
suite some steps of each are tried, with `PREBUILDS_RACE_ROUNDS` all of them.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio

from prebuilds.chassis.caller import Caller
from prebuilds.domain.ids import OrganizationId, TemplateId
from prebuilds.domain.principals import Person
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.administering import Administering
from prebuilds.reconciler.keys import KeyOrder, Keys
from prebuilds.reconciler.promoting import Promoting
from prebuilds.reconciler.pushing import Pushed, Pushing, PushOrder
from prebuilds.reconciler.queries.pools import Extent
from prebuilds.reconciler.retiring import Retiring
from prebuilds.reconciler.templating import TemplateOrder, Templating
from prebuilds.reconciler.updating import UpdateOrder, Updating
from prebuilds.store.database import Database, open_database
from prebuilds.store.transactions import Transaction
from prebuilds.store.workspaces.lifecycle import NewWorkspace, create_workspace
from tests.support.builders import make_organization, make_user
from tests.support.interleaving import Stop, until_done_or_blocked
from tests.support.pools import make_reconciler
from tests.support.postgres import deadlocks
from tests.support.reconciling import make_archive, make_manifest

ALL: Final = "PREBUILDS_RACE_ROUNDS" in os.environ
MOST_STEPS: Final = 60
TRIED: Final = 4
"""Steps of each in the short form: the last, the commit, and others by chance."""
EXPECTED: Final = {Reason.NOT_FOUND, Reason.TEMPLATE_DELETED, Reason.ORGANIZATION_IN_USE}
"""What who comes too late may be told."""

_LEFT: Final[Mapping[str, bytes]] = {
    "template": b"SELECT id FROM templates WHERE organization_id = %(id)s AND NOT deleted",
    "workspace": b"SELECT id FROM workspaces WHERE organization_id = %(id)s AND NOT deleted",
    "prebuild": b"SELECT workspace_id FROM prebuilds WHERE organization_id = %(id)s",
    "key": b"SELECT id FROM provisioner_keys WHERE organization_id = %(id)s AND revoked_at IS NULL",
}
"""What must not be left alive in a deleted organisation."""


@dataclass(frozen=True)
class Scene:
    """An organisation with a template of two versions, of which the first is active and asks for a prebuild."""

    database: Database
    admin: Caller
    organization_id: OrganizationId
    name: str
    template_id: TemplateId
    versions: tuple[UUID, UUID]

    async def delete(self) -> None:
        await Administering(self.database).delete(self.admin, self.organization_id)

    async def push(self, template: str, *, activate: bool) -> None:
        await push(self.database, self.admin, self.name, template, activate=activate)

    async def push_another(self) -> None:
        await self.push("other", activate=False)

    async def push_again(self) -> None:
        await self.push("python-dev", activate=True)

    async def create_template(self) -> None:
        order = TemplateOrder(self.name, "bare", "", "", None, "", None, None, None, "")
        await Templating(self.database).create(self.admin, order)

    async def create_key(self) -> None:
        await Keys(self.database).create(self.admin, KeyOrder(self.name, "local", {}, ""))

    async def create_workspace(self) -> None:
        owner_id = self.admin.person().user_id
        new = NewWorkspace(self.organization_id, owner_id, uuid4().hex, self.template_id, None, "")

        async def work(tx: Transaction) -> None:
            await create_workspace(tx, new)

        await self.database.run("create workspace", work)

    async def promote(self) -> None:
        await Promoting(self.database).promote(self.admin, self.versions[1])

    async def update_template(self) -> None:
        order = UpdateOrder(self.template_id, {"description": "changed"})
        await Updating(self.database).update(self.admin, order)

    async def deprecate(self) -> None:
        await Retiring(self.database).deprecate(self.admin, self.template_id, "old")

    async def delete_template(self) -> None:
        await Retiring(self.database).delete(self.admin, self.template_id)

    async def run_a_pass(self) -> None:
        done = await make_reconciler(self.database).run_pass(Extent(template_ids=frozenset({self.template_id})))
        assert done.failed == 0

    async def check(self) -> None:
        """Nothing lives in the organisation where it is deleted."""
        async with self.database.read("test") as tx:
            query = b"SELECT deleted FROM organizations WHERE id = %(id)s"
            if not await tx.fetch_one(query, {"id": self.organization_id}, row=bool):
                return
            for kind, query in _LEFT.items():
                left = await tx.fetch_all(query, {"id": self.organization_id}, row=UUID)
                assert not left, f"a {kind} is left in a deleted organisation"


Deed = Callable[[Scene], Coroutine[None, None, None]]

DEEDS: Final[Mapping[str, Deed]] = {
    "push": Scene.push_again,
    "create template": Scene.create_template,
    "create provisioner key": Scene.create_key,
    "create workspace": Scene.create_workspace,
    "promote": Scene.promote,
    "update template": Scene.update_template,
    "deprecate template": Scene.deprecate,
    "delete template": Scene.delete_template,
    "reconcile": Scene.run_a_pass,
}
"""By the name of the transaction."""
ALSO: Final[Mapping[str, Deed]] = {"push another": Scene.push_another, "delete organisation": Scene.delete}


async def push(database: Database, admin: Caller, organization: str, template: str, *, activate: bool) -> Pushed:
    archive = make_archive(make_manifest(template, instances=1))
    order = PushOrder(organization, "", archive, "", activate=activate, validate_only=False, request_id="")
    return await Pushing(database).push(admin, order)


@pytest_asyncio.fixture
async def make_scene(database: Database, database_url: str) -> AsyncIterator[Callable[[], Awaitable[Scene]]]:
    user_id = await make_user(database, "root")
    admin = Caller(Person(user_id, "root", {}, is_operator=True))
    async with AsyncExitStack() as stack:
        actors = await stack.enter_async_context(
            open_database(database_url, pool_size=8, min_size=1, application_name="actor")
        )

        async def make() -> Scene:
            name = f"o-{uuid4().hex[:8]}"
            organization_id = await make_organization(actors, name)
            first, second = [await push(actors, admin, name, "python-dev", activate=False) for _ in range(2)]
            versions = (first.version.id, second.version.id)
            return Scene(actors, admin, organization_id, name, first.template.id, versions)

        yield make
    # What connections have counted is seen once they are closed.
    assert await deadlocks(database_url) == 0


@pytest_asyncio.fixture
async def observer(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


async def try_to(deed: Callable[[], Awaitable[None]]) -> None:
    """Do it, or be told that it is too late, or too early."""
    try:
        await deed()
    except Refusal as refusal:
        if refusal.reason not in EXPECTED:
            raise


async def steps_of(name: str, deed: Callable[[], Awaitable[None]]) -> list[int]:
    """The steps that are tried of a transaction of this name."""

    async def nothing() -> None:
        return

    with pytest.MonkeyPatch.context() as patch:
        stop = Stop(patch, name, MOST_STEPS, nothing)
        await try_to(deed)
        count = stop.steps_done
    assert 0 < count < MOST_STEPS
    if ALL or count <= TRIED:
        return list(range(count))
    return sorted({count - 1, *random.Random(name).sample(range(count), TRIED - 1)})


async def play(scene: Scene, held: tuple[str, Deed], step: int, other: Deed, observer: psycopg.AsyncConnection) -> None:
    """Let one be held before this step of its transaction until the other has ended or waits for it."""
    name, deed = held
    acting: list[asyncio.Task[None]] = []

    async def act() -> None:
        acting.append(asyncio.create_task(try_to(partial(other, scene))))
        await until_done_or_blocked(acting[0], observer)

    with pytest.MonkeyPatch.context() as patch:
        stop = Stop(patch, name, step, act)
        await try_to(partial(deed, scene))
    assert stop.was_met, f"{name} has fewer steps than at first"
    await acting[0]
    await scene.check()


@pytest.mark.parametrize("other", [*DEEDS, *ALSO])
async def test_a_deletion_is_held_while_somebody_else_does(
    make_scene: Callable[[], Awaitable[Scene]], observer: psycopg.AsyncConnection, other: str
) -> None:
    deed = {**DEEDS, **ALSO}[other]
    for step in await steps_of("delete organisation", (await make_scene()).delete):
        await play(await make_scene(), ("delete organisation", Scene.delete), step, deed, observer)


@pytest.mark.parametrize("name", DEEDS)
async def test_who_is_held_while_the_organisation_is_deleted(
    make_scene: Callable[[], Awaitable[Scene]], observer: psycopg.AsyncConnection, name: str
) -> None:
    deed = DEEDS[name]
    for step in await steps_of(name, partial(deed, await make_scene())):
        await play(await make_scene(), (name, deed), step, Scene.delete, observer)
