"""Pausing reconciliation, and resuming it (behaviour section 5): no pass touches what is paused.

A pass reads the pauses under the preset's lock. A pool that a pass is working on while its template or the deployment
is paused is finished; no pool is begun after the pause's commit. To pause a preset waits for the pass that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action, Resource
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId, PresetId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.events.subjects import DEPLOYMENT
from prebuilds.reconciler.access import actor_of, is_operator, pool_for, template_for
from prebuilds.reconciler.queries.pauses import insert_pause, lock_paused, read_pause, remove_pause
from prebuilds.reconciler.queries.views import Pause, PauseScope
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.outbox.writer import append
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class PauseTarget:
    """What is paused or resumed."""

    scope: PauseScope
    id: UUID | None
    """None for the deployment."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A target that the caller may pause and resume."""

    name: str
    organization_id: OrganizationId | None
    payload: dict[str, str]


class Pausing:
    """Pauses and resumes reconciliation."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def pause(self, caller: Caller, target: PauseTarget, message: str) -> Pause:
        """Pause; what is paused already stays as it is. Refuses NOT_FOUND, PERMISSION_DENIED."""

        async def work(tx: Transaction) -> Pause:
            found = await _find(tx, caller, target)
            user_id = caller.person().user_id
            is_new = await insert_pause(tx, target.scope, target.id, message=message, user_id=user_id)
            pause = await read_pause(tx, target.scope, target.id)
            if pause is None:
                raise Refusal(Reason.TRANSACTION_CONFLICT, "it was resumed at this moment; pause it again")
            if is_new:
                await _tell(tx, target, found, _entry(caller, target, found, "pause", {"message": message}))
            return pause

        return await self._database.run("pause reconciliation", work)

    async def resume(self, caller: Caller, target: PauseTarget) -> Pause | None:
        """End a pause and give it; None where there was none. Refuses NOT_FOUND, PERMISSION_DENIED."""

        async def work(tx: Transaction) -> Pause | None:
            found = await _find(tx, caller, target)
            await lock_paused(tx, target.scope, target.id)
            pause = await read_pause(tx, target.scope, target.id)
            if pause is not None:
                await remove_pause(tx, target.scope, target.id)
                details = {"paused_by": pause.creator_name, "paused_at": pause.created_at.isoformat()}
                await _tell(tx, target, found, _entry(caller, target, found, "resume", details))
            return pause

        return await self._database.run("resume reconciliation", work)


async def _find(tx: Transaction, caller: Caller, target: PauseTarget) -> _Found:
    if target.id is None:
        if not is_operator(caller):
            raise Refusal(Reason.PERMISSION_DENIED, f"only operators may pause and resume the {target.scope}")
        return _Found(target.scope.value, None, {})
    if target.scope is PauseScope.TEMPLATE:
        template = await template_for(tx, caller, target.id, Action.UPDATE, resource=Resource.POOL)
        return _Found(template.name, template.organization_id, {"template_id": str(template.id)})
    preset = await pool_for(tx, caller, PresetId(target.id), Action.UPDATE)
    payload = {"template_id": str(preset.template_id), "preset_id": str(preset.preset_id)}
    return _Found(f"{preset.template_name}/{preset.preset_name}", preset.organization_id, payload)


def _entry(caller: Caller, target: PauseTarget, found: _Found, deed: str, details: dict[str, str]) -> AuditEntry:
    return AuditEntry(
        actor_of(caller),
        deed,
        target.scope.value,
        target.id or DEPLOYMENT,
        found.name,
        found.organization_id,
        details,
    )


async def _tell(tx: Transaction, target: PauseTarget, found: _Found, entry: AuditEntry) -> None:
    await record_deed(tx, entry)
    subject_id, organization_id = target.id or DEPLOYMENT, found.organization_id
    await append(tx, EventKind.SETTINGS_CHANGED, subject_id, organization_id=organization_id, payload=found.payload)
