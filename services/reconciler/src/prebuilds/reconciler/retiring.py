"""Taking templates out of use: deprecating them, which can be lifted, and deleting them (behaviour section 2).

Neither touches a workspace: pools drain by the passes that follow, and people's workspaces go on. What is deprecated
stays paused where it is, and drains once that ends; a template that is deleted is past pausing, so its pauses end.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action
from prebuilds.reconciler.access import actor_of, template_for
from prebuilds.reconciler.news import tell_of_change
from prebuilds.reconciler.queries.pauses import end_pauses_of
from prebuilds.reconciler.queries.templates import TemplateUse, count_use, lock_template, update_template
from prebuilds.reconciler.queries.versions import lock_pools
from prebuilds.reconciler.queries.views import Pause, TemplateRow
from prebuilds.reconciler.templating import lock_live
from prebuilds.store.audit import AuditEntry, changes, record_deed
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class Deleted:
    """A template that is deleted, or would be, and what there is of it."""

    template: TemplateRow
    use: TemplateUse


class Retiring:
    """Deprecates and deletes templates."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def deprecate(self, caller: Caller, template_id: UUID, message: str) -> TemplateRow:
        """Deprecate a template with this message, or with none lift that. Refuses TEMPLATE_DELETED.

        Does nothing where it is so already.
        """

        async def work(tx: Transaction) -> TemplateRow:
            found = await template_for(tx, caller, template_id, Action.UPDATE)
            locked = await lock_live(tx, found.id, found.name)
            # A later statement than the lock's: it sees what whoever held it before has committed.
            template = await template_for(tx, caller, template_id, Action.UPDATE)
            if template.deprecated == message:
                return template
            await lock_pools(tx, [locked.active_version_id])
            await update_template(tx, template.id, {"deprecated": message})
            entry = AuditEntry(
                actor_of(caller),
                "deprecate" if message else "undeprecate",
                "template",
                template.id,
                template.name,
                template.organization_id,
                changes({"message": template.deprecated}, {"message": message}),
            )
            await record_deed(tx, entry)
            await tell_of_change(tx, template.organization_id, template.id)
            return await template_for(tx, caller, template_id, Action.UPDATE)

        return await self._database.run("deprecate template", work)

    async def delete(self, caller: Caller, template_id: UUID, *, validate_only: bool = False) -> Deleted:
        """Delete a template; one that is deleted already is answered as it is. Its name is free again.

        Its pauses and those of its presets end with it, the deployment's does not.
        With `validate_only` it is only counted what there is of it, for who may delete it.
        """
        if validate_only:
            async with self._database.read("forecast deletion", snapshot=True) as tx:
                return await self._read(tx, caller, template_id)

        async def work(tx: Transaction) -> Deleted:
            template = await template_for(tx, caller, template_id, Action.DELETE)
            locked = await lock_template(tx, template.id)
            if locked.deleted:
                return await self._read(tx, caller, template_id)
            await lock_pools(tx, [locked.active_version_id])
            await update_template(tx, template.id, {"deleted": True})
            pauses = await end_pauses_of(tx, template.id)
            deleted = await self._read(tx, caller, template_id)
            details: dict[str, object] = {"workspaces": deleted.use.workspaces, "prebuilds": deleted.use.prebuilds}
            if pauses:
                details["ended_pauses"] = [_plain(pause) for pause in pauses]
            entry = AuditEntry(
                actor_of(caller),
                "delete",
                "template",
                template.id,
                template.name,
                template.organization_id,
                details,
            )
            await record_deed(tx, entry)
            await tell_of_change(tx, template.organization_id, template.id)
            return deleted

        return await self._database.run("delete template", work)

    @staticmethod
    async def _read(tx: Transaction, caller: Caller, template_id: UUID) -> Deleted:
        template = await template_for(tx, caller, template_id, Action.DELETE)
        return Deleted(template, await count_use(tx, template.organization_id, template.id))


def _plain(pause: Pause) -> dict[str, str]:
    """A pause as the audit log has it."""
    return {
        "scope": pause.scope.value,
        "id": str(pause.target_id),
        "paused_by": pause.creator_name,
        "paused_at": pause.created_at.isoformat(),
    }
