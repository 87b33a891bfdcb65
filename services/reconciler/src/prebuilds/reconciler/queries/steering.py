"""What people tell presets: that their prebuilds are no good, and to try again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import func, select, update

from prebuilds.domain.ids import PresetId, VersionId
from prebuilds.store.schema import Preset
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


async def read_names(tx: Transaction, version_id: VersionId) -> Mapping[PresetId, str]:
    """The presets of a version that ask for prebuilds, by id, in order of their names."""
    of_pools = select(Preset.id, Preset.name).where(
        Preset.version_id == version_id, Preset.desired_instances.is_not(None)
    )
    return {PresetId(id_): name for id_, name in await tx.execute(of_pools.order_by(Preset.name))}


async def lock_presets(tx: Transaction, preset_ids: Collection[PresetId]) -> None:
    """Lock presets by id; waits for passes that work on them."""
    statement = select(Preset.id).where(Preset.id.in_(preset_ids)).order_by(Preset.id)
    await tx.execute(statement.with_for_update(key_share=True))


async def count_unexpired(tx: Transaction, preset_ids: Sequence[PresetId]) -> int:
    """How many prebuilds of these presets run and are not expired yet."""
    return await tx.fetch_one(_queries["count_unexpired"], {"preset_ids": list(preset_ids)}, row=int) or 0


async def invalidate(tx: Transaction, preset_ids: Collection[PresetId]) -> datetime:
    """Declare the prebuilds of locked presets expired, and give the moment before which they were created.

    That is the present one and not the transaction's, which began before it waited for the locks.
    """
    moment: datetime = (await tx.execute(select(func.clock_timestamp()))).scalar_one()
    await tx.execute(update(Preset).where(Preset.id.in_(preset_ids)).values(last_invalidated_at=moment))
    return moment


async def request_retry(tx: Transaction, preset_id: PresetId) -> None:
    """Let one prebuild of a locked preset be tried; at the present moment, as `invalidate`."""
    await tx.execute(update(Preset).where(Preset.id == preset_id).values(retry_requested_at=func.clock_timestamp()))
