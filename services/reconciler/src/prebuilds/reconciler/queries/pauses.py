"""Pauses of reconciliation: of the deployment in `settings`, of templates and presets in their own rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from prebuilds.domain.ids import PresetId, TemplateId, UserId
from prebuilds.reconciler.queries.views import Pause, PauseScope
from prebuilds.store.schema import Preset, Setting, Template
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

DEPLOYMENT_PAUSE: Final = "reconciliation_pause"
"""Key of the setting that is there while the whole deployment is paused; its columns say who paused, and when."""

_queries: Final = SqlFolder("prebuilds.reconciler.queries")


_TABLES: Final[Mapping[PauseScope, type[Template | Preset]]] = {
    PauseScope.TEMPLATE: Template,
    PauseScope.PRESET: Preset,
}
"""Where a pause is kept beside the thing itself; the deployment's is a setting."""


async def read_pauses(
    tx: Transaction, *, template_ids: Collection[TemplateId] = (), preset_ids: Collection[PresetId] = ()
) -> list[Pause]:
    """Read the pause of the deployment and those of these templates and presets, the widest first."""
    parameters = {"template_ids": list(template_ids), "preset_ids": list(preset_ids)}
    return await tx.fetch_all(_queries["pauses"], parameters, row=Pause)


async def read_pause(tx: Transaction, scope: PauseScope, target_id: UUID | None) -> Pause | None:
    """Read one pause, if it is there."""
    ids = [] if target_id is None else [target_id]
    pauses = await read_pauses(
        tx, template_ids=[TemplateId(id_) for id_ in ids], preset_ids=[PresetId(id_) for id_ in ids]
    )
    return next((pause for pause in pauses if (pause.scope, pause.target_id) == (scope, target_id)), None)


async def insert_pause(
    tx: Transaction, scope: PauseScope, target_id: UUID | None, *, message: str, user_id: UserId
) -> bool:
    """Pause what is not paused; False where it is already, which stays as it is. Locks the template or preset."""
    table = _TABLES.get(scope)
    if table is None:
        setting = (
            insert(Setting)
            .values(key=DEPLOYMENT_PAUSE, value={"message": message}, updated_by=user_id)
            .on_conflict_do_nothing(index_elements=[Setting.key])
            .returning(Setting.key)
        )
        return await tx.scalar(setting) is not None
    paused = (
        update(table)
        .where(table.id == target_id, table.paused_at.is_(None))
        .values(paused_at=func.now(), paused_by=user_id, pause_message=message)
        .returning(table.id)
    )
    return await tx.scalar(paused) is not None


async def end_pauses_of(tx: Transaction, template_id: TemplateId) -> list[Pause]:
    """End the pauses of a locked template and of its presets of all versions, which are locked by id, and give them."""
    paused = select(Preset.id).where(Preset.template_id == template_id, Preset.paused_at.is_not(None))
    locked = (await tx.execute(paused.order_by(Preset.id).with_for_update(key_share=True))).scalars()
    preset_ids = [PresetId(id_) for id_ in locked]
    pauses = await read_pauses(tx, template_ids=[template_id], preset_ids=preset_ids)
    await _resume(tx, Template, [template_id])
    await _resume(tx, Preset, preset_ids)
    return [pause for pause in pauses if pause.scope is not PauseScope.DEPLOYMENT]


async def lock_paused(tx: Transaction, scope: PauseScope, target_id: UUID | None) -> None:
    """Lock what may be paused, so that its pause stays as a later statement reads it."""
    table = _TABLES.get(scope)
    if table is None:
        await tx.execute(select(Setting.key).where(Setting.key == DEPLOYMENT_PAUSE).with_for_update())
    else:
        await tx.execute(select(table.id).where(table.id == target_id).with_for_update(key_share=True))


async def remove_pause(tx: Transaction, scope: PauseScope, target_id: UUID | None) -> None:
    """Remove the pause of what is locked."""
    table = _TABLES.get(scope)
    if table is None:
        await tx.execute(delete(Setting).where(Setting.key == DEPLOYMENT_PAUSE))
    else:
        await _resume(tx, table, [] if target_id is None else [target_id])


async def _resume(tx: Transaction, table: type[Template | Preset], ids: Collection[UUID]) -> None:
    resumed = update(table).where(table.id.in_(ids), table.paused_at.is_not(None))
    await tx.execute(resumed.values(paused_at=None, paused_by=None, pause_message=""))
