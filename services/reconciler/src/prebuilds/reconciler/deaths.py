"""Built but dead by disconnection: the loop that fails prebuilds which nobody could be handed (behaviour section 3).

Postgres is authoritative, nothing is remembered between runs. A run finds candidates without locks, then takes them in
batches: each is a transaction that locks pool rows and workspaces, looks again, and fails what is still dead. Any
number of replicas run it: the second finds the prebuilds of the first failed already. Crash before a batch's commit:
nothing happened to it. A claim that took one first leaves no pool row to lock; one that comes later finds no row that
runs. Deaths are told of paused pools, too: that something does not run any more is no work on a pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from prebuilds.store.database import Database
from prebuilds.store.pool.deaths import fail_disconnected_prebuilds, find_disconnected

INTERVAL: Final = timedelta(seconds=30)
"""How often it is looked; a death is noticed that much later at most."""

MOST_AT_ONCE: Final = 200
"""Prebuilds per transaction."""

MOST_BATCHES: Final = 20
"""Transactions per run."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Deaths:
    """What one run found; false where there was nothing."""

    failed: int = 0
    spared: int = 0
    """Found dead at first, and not under their locks any more."""

    def __bool__(self) -> bool:
        """Whether anything was found."""
        return self != Deaths()


async def fail_disconnected(database: Database) -> Deaths:
    """Run once over all prebuilds."""
    found = Deaths()
    for _ in range(MOST_BATCHES):
        async with database.read("find disconnected prebuilds") as tx:
            candidates = await find_disconnected(tx, limit=MOST_AT_ONCE)
        if not candidates:
            break
        failed = await database.run(
            "fail disconnected prebuilds", lambda tx, batch=candidates: fail_disconnected_prebuilds(tx, batch)
        )
        for workspace_id in sorted(failed):
            _log.warning(
                "prebuild failed", workspace_id=workspace_id, reason="disconnected", failure_class="infrastructure"
            )
        found = Deaths(found.failed + len(failed), found.spared + len(candidates) - len(failed))
        if len(candidates) < MOST_AT_ONCE:
            break
    return found
