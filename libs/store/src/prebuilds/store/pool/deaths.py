"""Built but dead: prebuilds whose build succeeded and whose startup did not (behaviour section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prebuilds.domain.builds import FailureClass
from prebuilds.domain.ids import SYSTEM_USER_ID, BuildId, OrganizationId, PresetId, TemplateId, WorkspaceId
from prebuilds.domain.pools import PoolEventKind
from prebuilds.store.jobs.news import build_changed
from prebuilds.store.outbox.writer import append_many
from prebuilds.store.pool_events import PoolEvent, record_pool_events
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


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
    agents or pool rows: a report of the agent, or the completion of a build whose agent had failed before. The build
    becomes a failed one, so that it counts for backoff and hard limit like any other. Whoever changes builds of a
    workspace holds the workspace's lock, so locking one after its agents cannot deadlock.
    """
    dead = await tx.fetch_all(_queries["fail_dead"], {"workspace_ids": list(workspace_ids)}, row=_Dead)
    if not dead:
        return frozenset()
    await record_pool_events(
        tx,
        [
            PoolEvent(
                each.organization_id,
                each.template_id,
                each.preset_name,
                PoolEventKind.FAILED,
                reason="startup failed",
                failure_class=FailureClass.TEMPLATE,
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
