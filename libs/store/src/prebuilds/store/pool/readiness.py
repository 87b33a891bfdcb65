"""Whether prebuilds are ready (behaviour section 3): their start has succeeded and all their agents are ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId, PresetId, TemplateId, WorkspaceId
from prebuilds.store.outbox.writer import Event, append_many
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


@dataclass(frozen=True, slots=True)
class _Changed:
    workspace_id: WorkspaceId
    organization_id: OrganizationId
    template_id: TemplateId
    preset_id: PresetId
    is_ready: bool
    is_trial: bool


async def refresh_readiness(tx: Transaction, workspace_ids: Sequence[WorkspaceId]) -> None:
    """Compute readiness anew for locked pool rows, in a statement later than what may have changed it.

    Those who wait in line are told who is ready; the reconciler, which fills a hard limited pool no further until the
    prebuild of a retry has come up, is told that one has.
    """
    changed = await tx.fetch_all(_queries["refresh_readiness"], {"workspace_ids": list(workspace_ids)}, row=_Changed)
    await append_many(tx, [event for each in changed if each.is_ready for event in _news(each)])


def _news(ready: _Changed) -> Iterator[Event]:
    payload = {"workspace_id": str(ready.workspace_id), "preset_id": str(ready.preset_id)}
    yield Event(EventKind.AGENT_READY, ready.workspace_id, ready.organization_id, payload)
    if ready.is_trial:
        yield Event(
            EventKind.TEMPLATE_CHANGED, ready.template_id, ready.organization_id, {"preset_ids": str(ready.preset_id)}
        )
