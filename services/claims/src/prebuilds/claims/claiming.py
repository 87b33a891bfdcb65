"""Claiming a prebuild, or finding out why there is none to claim (behaviour section 6).

Statements of a hit: `store/pool/claim.sql`, with BEGIN; `queries/workspaces.sql`, with COMMIT. A miss adds between them
`pool_facts.sql` and what a cold build writes.

Others may hold all that is eligible for a moment. Then nothing is waited for inside the transaction: it is rolled back,
which takes the request off the record too, and begun again after 2 to 10 ms, up to 5 times; the last time waits for the
locks. Only what that one does not get is a miss.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Final
from uuid import uuid4

from prebuilds.claims.attempts import Attempt, Creation, MissedError, UsedBeforeError
from prebuilds.claims.cold import build_cold, require_usable_now
from prebuilds.claims.queries.offers import Preset, read_pool
from prebuilds.claims.queries.workspaces import read_workspaces
from prebuilds.claims.rules.misses import why_missed
from prebuilds.domain.claims import ClaimMode, MissReason
from prebuilds.domain.ids import BuildId
from prebuilds.store.database import Database
from prebuilds.store.pool.claiming import Claimed, ClaimOrder, NotAdmitted, NothingEligible, claim
from prebuilds.store.transactions import Transaction

HELD_TRIES: Final = 5
"""How often a claim is tried again while others hold all that is eligible, before it waits for their locks."""

_PAUSE: Final = (0.002, 0.010)  # seconds


class _HeldByOthersError(Exception):
    """Nothing was taken although there is something eligible: roll back and try again."""


async def claim_or_build(database: Database, attempt: Attempt, preset: Preset) -> Creation:
    """Claim from the preset's pool, else build cold.

    Raises UsedBeforeError, Refusal NAME_TAKEN, TEMPLATE_DEPRECATED, NOT_FOUND (of a template that has just gone), and
    MissedError for a miss in mode REQUIRE_WARM.
    """
    for _ in range(1 + HELD_TRIES):
        try:
            return await _run(database, attempt, preset, wait_for_locks=False)
        except _HeldByOthersError:
            await asyncio.sleep(random.uniform(*_PAUSE))  # noqa: S311 - jitter
    return await _run(database, attempt, preset, wait_for_locks=True)


async def _run(database: Database, attempt: Attempt, preset: Preset, *, wait_for_locks: bool) -> Creation:
    work = partial(_claim, attempt=attempt, preset=preset, wait_for_locks=wait_for_locks)
    return await database.run("claim", work)


async def _claim(tx: Transaction, *, attempt: Attempt, preset: Preset, wait_for_locks: bool) -> Creation:
    outcome = await claim(tx, _order(attempt, preset), wait_for_locks=wait_for_locks)
    match outcome:
        case NotAdmitted():
            raise UsedBeforeError
        case Claimed(workspace_id=workspace_id):
            (workspace,) = await read_workspaces(tx, [workspace_id], last=True)
            return Creation(workspace, workspace.build, None)
        case NothingEligible():
            miss = await _explain(tx, preset, last_try=wait_for_locks)
            if attempt.wish.mode is ClaimMode.REQUIRE_WARM:
                await require_usable_now(tx, attempt)
                raise MissedError(miss)
            return await build_cold(tx, attempt, miss)


async def _explain(tx: Transaction, preset: Preset, *, last_try: bool) -> MissReason:
    pool = await read_pool(tx, preset.preset_id)
    if pool is None:
        return MissReason.NO_POOL
    if pool.eligible and not last_try:
        raise _HeldByOthersError
    return why_missed(pool.facts)


def _order(attempt: Attempt, preset: Preset) -> ClaimOrder:
    plan = attempt.plan
    return ClaimOrder(
        organization_id=plan.organization_id,
        preset_id=preset.preset_id,
        owner_id=plan.owner.user_id,
        owner_name=plan.owner.name,
        initiator_id=attempt.initiator_id,
        name=attempt.name,
        actor=attempt.actor,
        method=attempt.key.method,
        request_id=attempt.key.request_id,
        fingerprint=attempt.content,
        requested_at=attempt.requested_at,
        build_id=BuildId(uuid4()),
        parameters=plan.choices,
        ttl=plan.ttl,
        autostart=plan.autostart,
    )
