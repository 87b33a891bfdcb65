"""Creating a workspace: by a claim where that is possible, else cold (behaviour section 6).

A hit takes three round trips: `queries/offer.sql` in a transaction of its own (organisation, owner, template,
parameters and presets), then the two of `claiming`.

Crash points: before the commit nothing happened and the prebuild is in its pool; after it a caller that did not get the
answer repeats the request under its id and gets it: a request that is not admitted reads the first answer. Refusals are
not kept, only that their miss was counted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from opentelemetry.metrics import Meter

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.claims.attempts import (
    RETRY_AFTER,
    Attempt,
    Creation,
    MissedError,
    UsedBeforeError,
    refused,
)
from prebuilds.claims.claiming import claim_or_build
from prebuilds.claims.cold import build_cold, record_miss
from prebuilds.claims.queries.filters import BuildFilter
from prebuilds.claims.queries.naming import Named
from prebuilds.claims.queries.offers import Offer, find_offer, read_pool
from prebuilds.claims.queries.workspaces import (
    find_build,
    has_workspace_named,
    list_builds,
    read_workspaces,
)
from prebuilds.claims.rules.misses import why_missed
from prebuilds.claims.wishes import Plan, Wish, make_plan
from prebuilds.domain.claims import ClaimMode, MissReason
from prebuilds.domain.ids import BuildId
from prebuilds.domain.names import default_workspace_name
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.audit import Actor
from prebuilds.store.database import Database
from prebuilds.store.requests import RequestKey, admit, fingerprint, first_answer
from prebuilds.store.transactions import Transaction

METHOD: Final = "CreateWorkspace"

_NAME_BYTES: Final = 4
_TRIES: Final = 3
"""How many made names may turn out to be taken, and how many winners of a request id may fail after all."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would happen now; nothing was changed."""

    plan: Plan
    name: str
    """Empty: one would be made."""
    miss: MissReason | None


class Creations:
    """Creates workspaces."""

    def __init__(self, database: Database, meter: Meter, make_name: Callable[[str], str] | None = None) -> None:
        """Write to this database; `make_name` makes a workspace's name from its template's."""
        self._database = database
        self._make_name = make_name or _random_name
        self._claim_duration = meter.create_histogram(
            "prebuilds_claim_duration_seconds", unit="s", description="From a request to the commit of its claim."
        )

    async def create(self, caller: Caller, wish: Wish) -> Creation:
        """Create a workspace, or give the first answer to a request id that was used before."""
        started = time.perf_counter()
        offer = await self._offer(caller, wish)
        person = caller.person()
        key = RequestKey(offer.organization_id, caller.key, METHOD, wish.request_id)
        content = fingerprint(wish.plain_values())
        try:
            plan = make_plan(offer, wish)
        except Refusal:
            # The template may have changed since: a request that was answered gets its answer all the same.
            answered = await self._answered(key, content) if wish.request_id else None
            if answered is None:
                raise
            return answered
        actor = Actor(caller.key, person.name)
        attempt = Attempt(plan, wish, person.user_id, actor, key, content, wish.name, offer.looked_at)
        for _ in range(_TRIES):
            try:
                creation = await self._create_named(attempt)
            except UsedBeforeError:
                answered = await self._answered(key, content)
                if answered is not None:
                    return answered
            else:
                self._tell(creation, wish, offer.organization_name, time.perf_counter() - started)
                return creation
        raise Refusal(Reason.TRANSACTION_CONFLICT, "requests of this id come and go", retry_after=RETRY_AFTER)

    async def forecast(self, caller: Caller, wish: Wish) -> Forecast:
        """Tell what would happen now; refuses what would be refused."""
        offer = await self._offer(caller, wish)
        plan = make_plan(offer, wish)
        miss = plan.miss
        async with self._database.read("forecast") as tx:
            if wish.name and await has_workspace_named(tx, plan.owner.user_id, wish.name):
                raise Refusal(Reason.NAME_TAKEN, f"you have a workspace named {wish.name!r}")
            pool = await read_pool(tx, plan.preset.preset_id) if miss is None and plan.preset else None
        if pool is not None and not pool.eligible:
            miss = why_missed(pool.facts)
        if miss is not None and wish.mode is ClaimMode.REQUIRE_WARM:
            raise refused(miss)
        return Forecast(plan, wish.name, miss)

    async def _offer(self, caller: Caller, wish: Wish) -> Offer:
        """Find all that a creation is decided by, in an organisation that is open to the caller."""
        person = caller.person()
        offer = await find_offer(
            self._database,
            organization=wish.organization,
            template=wish.template,
            owner=wish.owner or Named(person.name, person.user_id, None),
            caller_id=person.user_id,
        )
        if offer is None:
            raise Refusal.not_found("organization", wish.organization.text)
        caller.require(
            offer.organization_id,
            Resource.WORKSPACE,
            Action.CREATE,
            owner_id=offer.owner.user_id if offer.owner else None,
            name=wish.organization.text,
        )
        return offer

    async def _create_named(self, attempt: Attempt) -> Creation:
        """Create under the name given, or under one made; one that turns out to be taken is made anew."""
        if attempt.wish.name:
            return await self._create(attempt)
        template = attempt.plan.template.name
        for _ in range(_TRIES - 1):
            try:
                return await self._create(replace(attempt, name=self._make_name(template)))
            except Refusal as refusal:
                if refusal.reason is not Reason.NAME_TAKEN:
                    raise
        return await self._create(replace(attempt, name=self._make_name(template)))

    async def _create(self, attempt: Attempt) -> Creation:
        plan = attempt.plan
        if plan.miss is None and plan.preset is not None:
            try:
                return await claim_or_build(self._database, attempt, plan.preset)
            except MissedError as missed:
                raise await self._refuse(attempt, missed.reason) from None
        miss = plan.miss or MissReason.NO_MATCHING_PRESET
        if attempt.wish.mode is ClaimMode.REQUIRE_WARM:
            raise await self._refuse(attempt, miss)
        work = partial(_create_cold, attempt=attempt, miss=miss)
        return await self._database.run("create cold", work)

    async def _refuse(self, attempt: Attempt, miss: MissReason) -> Refusal:
        """Remember a miss in a transaction of its own, the one that found it being undone, and give its refusal."""
        async with self._database.transaction("record miss") as tx:
            await record_miss(tx, attempt, miss)
        return refused(miss)

    async def _answered(self, key: RequestKey, content: bytes) -> Creation | None:
        """Give the first answer; None where nobody has got one."""
        async with self._database.read("first answer") as tx:
            answer = await first_answer(tx, key, content)
            if answer is None:
                return None
            build_id = BuildId(UUID(answer["build_id"]))
            place = await find_build(tx, build_id)
            if place is None:
                return None
            (workspace,) = await read_workspaces(tx, [place.workspace_id])
            (build,) = await list_builds(tx, BuildFilter(place.workspace_id, build_id))
        miss = answer.get("miss")
        return Creation(workspace, build, None if miss is None else MissReason(miss))

    def _tell(self, creation: Creation, wish: Wish, organization: str, seconds: float) -> None:
        workspace = creation.workspace
        if creation.miss is None:
            labels = {
                "organization": organization,
                "template": workspace.template_name,
                "preset": creation.build.preset_name or "",
            }
            self._claim_duration.record(seconds, labels)
        _log.info(
            "workspace created",
            workspace_id=str(workspace.id),
            owner_id=str(workspace.owner_id),
            template=workspace.template_name,
            preset=creation.build.preset_name,
            organization=organization,
            outcome="hit" if creation.miss is None else "miss",
            reason=creation.miss,
            mode=wish.mode,
            seconds=round(seconds, 4),
        )


async def _create_cold(tx: Transaction, *, attempt: Attempt, miss: MissReason) -> Creation:
    if not await admit(tx, attempt.key, attempt.content, {}):
        raise UsedBeforeError
    return await build_cold(tx, attempt, miss)


def _random_name(template: str) -> str:
    return default_workspace_name(template, secrets.token_bytes(_NAME_BYTES))
