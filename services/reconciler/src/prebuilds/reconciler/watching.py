"""Watching pools: first all that match, then those that change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from prebuilds.chassis.clock import Clock
from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.reconciler.inspecting import Inspector, PoolView
from prebuilds.reconciler.queries.pools import Extent

LOOKED_AGAIN_AFTER: Final = timedelta(seconds=1)
MAX_POOLS: Final = 500
"""Most pools in one message."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is new since the change before."""

    pools: list[PoolView]
    removed: list[PresetId]
    is_complete: bool
    """Whether every pool that matches has been told once."""


async def watch_pools(
    inspector: Inspector,
    organization_id: OrganizationId,
    matches: Callable[[PoolView], bool],
    *,
    clock: Clock,
) -> AsyncIterator[Change]:
    """Tell the pools of an organisation for as long as somebody listens, looking once a second."""
    known: dict[PresetId, PoolView] = {}
    is_complete = False
    while True:
        presets = await inspector.list_presets(Extent(organization_ids=frozenset({organization_id})))
        views = [view for view in await inspector.look(presets) if matches(view)]
        present = {view.preset.preset_id: view for view in views}
        changed = [view for id_, view in present.items() if _timeless(view) != _told(known.get(id_))]
        removed = [id_ for id_ in known if id_ not in present]
        while len(changed) > MAX_POOLS:
            yield Change(changed[:MAX_POOLS], [], is_complete)
            changed = changed[MAX_POOLS:]
        if changed or removed or not is_complete:
            is_complete = True
            yield Change(changed, removed, is_complete)
        known = present
        await clock.sleep(LOOKED_AGAIN_AFTER.total_seconds())


def _told(view: PoolView | None) -> PoolView | None:
    return None if view is None else _timeless(view)


def _timeless(view: PoolView) -> PoolView:
    """A view without the moment at which it was looked at."""
    return replace(view, at=datetime.min.replace(tzinfo=view.at.tzinfo))
