"""Trying a hard limited preset again (behaviour section 4): one prebuild is let through, its success heals."""

from __future__ import annotations

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action
from prebuilds.domain.ids import PresetId
from prebuilds.reconciler.access import actor_of, pool_for
from prebuilds.reconciler.inspecting import BlockKind, Inspector, PoolView
from prebuilds.reconciler.news import tell_of_presets
from prebuilds.reconciler.queries.steering import lock_presets, request_retry
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction


class Retrying:
    """Lets hard limited presets be tried again."""

    def __init__(self, database: Database, inspector: Inspector) -> None:
        """Work in this database; `inspector` says what is hard limited."""
        self._database = database
        self._inspector = inspector

    async def retry(self, caller: Caller, preset_id: PresetId) -> PoolView:
        """Ask for one try and give the pool as it is then; nothing is done to a preset that is not hard limited.

        Locks the preset. Refuses NOT_FOUND.
        """

        async def work(tx: Transaction) -> PoolView:
            await pool_for(tx, caller, preset_id, Action.UPDATE)
            await lock_presets(tx, [preset_id])
            # Read again: a pass that had the preset may have changed it.
            preset = await pool_for(tx, caller, preset_id, Action.UPDATE)
            (pool,) = await self._inspector.look(tx, [preset])
            if BlockKind.HARD_LIMITED not in {block.kind for block in pool.blocks}:
                return pool
            await request_retry(tx, preset_id)
            entry = AuditEntry(
                actor_of(caller),
                "retry",
                "preset",
                preset_id,
                f"{preset.template_name}/{preset.preset_name}",
                preset.organization_id,
            )
            await record_deed(tx, entry)
            await tell_of_presets(tx, preset.organization_id, preset.template_id, [preset_id])
            preset = await pool_for(tx, caller, preset_id, Action.UPDATE)
            (pool,) = await self._inspector.look(tx, [preset])
            return pool

        return await self._database.run("retry preset", work)
