"""Built but dead: prebuilds whose build succeeded and that are of no use all the same (behaviour section 3).

Either an agent's startup failed, the template's fault, or its agents were not connected for long although a gateway was
there, the infrastructure's. Both end alike: the prebuild and its build have failed, which counts for backoff (and for
the hard limit in the first case) like a build that failed itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from prebuilds.domain.builds import FailureClass
from prebuilds.domain.ids import SYSTEM_USER_ID, BuildId, OrganizationId, PresetId, TemplateId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.store.gateways import GONE_AFTER
from prebuilds.store.jobs.news import build_changed
from prebuilds.store.outbox.writer import append_many
from prebuilds.store.pool.locks import lock_prebuilds, lock_workspaces
from prebuilds.store.pool_events import PoolEvent, record_pool_events
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

DEAD_AFTER: Final = timedelta(minutes=10)
"""How long a prebuild that runs may go unconnected."""

_queries: Final = SqlFolder("prebuilds.store.pool")


@dataclass(frozen=True, slots=True)
class _Dying:
    workspace_id: WorkspaceId
    error: str


@dataclass(frozen=True, slots=True)
class _Dead:
    workspace_id: WorkspaceId
    organization_id: OrganizationId
    template_id: TemplateId
    preset_id: PresetId
    preset_name: str
    build_id: BuildId


async def fail_dead_prebuilds(tx: Transaction, workspace_ids: Sequence[WorkspaceId]) -> frozenset[WorkspaceId]:
    """Fail those of these prebuilds that run although an agent's startup failed; answers which. Class: *template*.

    The caller holds the locks of pool rows and workspaces, and calls it in a statement later than what may have changed
    agents or pool rows: a report of the agent, or the completion of a build whose agent had failed before. Whoever
    changes builds of a workspace holds the workspace's lock, so locking one after its agents cannot deadlock.
    """
    dying = await tx.fetch_all(_queries["find_failed_startups"], {"workspace_ids": list(workspace_ids)}, row=_Dying)
    errors = {each.workspace_id: each.error for each in dying}
    return await _fail(tx, errors, FailureClass.TEMPLATE, reason="startup failed")


async def find_disconnected(tx: Transaction, *, limit: int) -> Sequence[WorkspaceId]:
    """Find, without locks, prebuilds to call `fail_disconnected_prebuilds` with.

    Not connected = an agent is missing, or is held by a gateway that was not seen for `GONE_AFTER`. Since when: since
    it went missing, or since its gateway counts as gone; in any case not before the build ended, however long that
    took. An outage of all gateways kills nothing: one must have been live for all of `DEAD_AFTER`, and one that comes
    back begins anew.
    """
    return await _disconnected(tx, None, limit)


async def fail_disconnected_prebuilds(tx: Transaction, workspace_ids: Sequence[WorkspaceId]) -> frozenset[WorkspaceId]:
    """Fail those of these prebuilds that are not connected for too long; answers which. Class: *infrastructure*.

    Locks pool rows, workspaces, by id, and looks again under the locks: one that was claimed, is being rebuilt, or
    whose agents came back meanwhile is left alone.
    """
    unclaimed = sorted(await lock_prebuilds(tx, workspace_ids))
    if not unclaimed:
        return frozenset()
    await lock_workspaces(tx, unclaimed)
    dying = await _disconnected(tx, unclaimed, len(unclaimed))
    error = f"its agents were not connected for {DEAD_AFTER // timedelta(minutes=1)} min"
    return await _fail(tx, dict.fromkeys(dying, error), FailureClass.INFRASTRUCTURE, reason="disconnected")


async def _disconnected(
    tx: Transaction, workspace_ids: Sequence[WorkspaceId] | None, limit: int
) -> Sequence[WorkspaceId]:
    terms = {
        "workspace_ids": None if workspace_ids is None else list(workspace_ids),
        "gone_after": GONE_AFTER,
        "dead_after": DEAD_AFTER,
        "limit": limit,
    }
    return [WorkspaceId(found) for found in await tx.fetch_all(_queries["find_disconnected"], terms, row=UUID)]


async def _fail(
    tx: Transaction, errors: Mapping[WorkspaceId, str], failure_class: FailureClass, *, reason: str
) -> frozenset[WorkspaceId]:
    """Fail these locked prebuilds, as far as they run, and their builds; tell history and whoever waits for news."""
    if not errors:
        return frozenset()
    dead = await tx.fetch_all(
        _queries["fail_dead"],
        {
            "workspace_ids": list(errors),
            "errors": list(errors.values()),
            "failure_class": failure_class.value,
        },
        row=_Dead,
    )
    await record_pool_events(
        tx,
        [
            PoolEvent(
                each.organization_id,
                each.template_id,
                each.preset_name,
                PoolEventKind.FAILED,
                reason=reason,
                failure_class=failure_class,
                workspace_id=each.workspace_id,
            )
            for each in dead
        ],
    )
    await append_many(
        tx,
        [
            build_changed(
                each.workspace_id,
                each.organization_id,
                build_id=each.build_id,
                preset_id=each.preset_id,
                owner_id=SYSTEM_USER_ID,
            )
            for each in dead
        ],
    )
    return frozenset(each.workspace_id for each in dead)
