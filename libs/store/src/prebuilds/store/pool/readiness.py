"""Whether prebuilds are ready (behaviour section 3): their start has succeeded and all their agents are ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import SYSTEM_USER_ID, BuildId, OrganizationId, PresetId, WorkspaceId
from prebuilds.store.jobs.news import build_changed
from prebuilds.store.outbox.writer import Event, append_many
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


@dataclass(frozen=True, slots=True)
class _Changed:
    workspace_id: WorkspaceId
    organization_id: OrganizationId
    preset_id: PresetId
    build_id: BuildId
    is_ready: bool
    is_trial: bool


async def refresh_readiness(tx: Transaction, workspace_ids: Sequence[WorkspaceId]) -> None:
    """Compute readiness anew for locked pool rows, in a statement later than what may have changed it.

    Those who wait in line are told who is ready. Of a prebuild that is tried, its preset being hard limited, the start
    has come to its end with that, which is told like the end of a build.
    """
    changed = await tx.fetch_all(_queries["refresh_readiness"], {"workspace_ids": list(workspace_ids)}, row=_Changed)
    await append_many(tx, [event for each in changed if each.is_ready for event in _news(each)])


def _news(ready: _Changed) -> Iterator[Event]:
    payload = {"workspace_id": str(ready.workspace_id), "preset_id": str(ready.preset_id)}
    yield Event(EventKind.AGENT_READY, ready.workspace_id, ready.organization_id, payload)
    if ready.is_trial:
        yield build_changed(
            ready.workspace_id,
            ready.organization_id,
            build_id=ready.build_id,
            preset_id=ready.preset_id,
            owner_id=SYSTEM_USER_ID,
        )
