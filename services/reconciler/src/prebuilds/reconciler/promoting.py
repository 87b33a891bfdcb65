"""Making a version the active one (behaviour section 2): its pools fill, those of the version before drain."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action
from prebuilds.domain.ids import VersionId
from prebuilds.reconciler.access import actor_of, template_for, version_for
from prebuilds.reconciler.news import tell_of_change
from prebuilds.reconciler.queries.templates import LockedTemplate, set_active_version
from prebuilds.reconciler.queries.versions import lock_pools
from prebuilds.reconciler.queries.views import TemplateRow, VersionRow
from prebuilds.reconciler.rules.manifest import Manifest
from prebuilds.reconciler.templating import lock_live
from prebuilds.store.audit import AuditEntry, changes, record_deed
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class Promoted:
    """What is active now, and what was."""

    template: TemplateRow
    version: VersionRow
    previous_version_id: VersionId | None


class Promoting:
    """Promotes versions."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def promote(self, caller: Caller, version_id: UUID) -> Promoted:
        """Make a version the active one; does nothing where it is already. Refuses TEMPLATE_DELETED."""

        async def work(tx: Transaction) -> Promoted:
            version = await version_for(tx, caller, version_id, Action.UPDATE)
            template = await lock_live(tx, version.template_id, version.template_name)
            if template.active_version_id != version.id:
                before = await template_for(tx, caller, version.template_id, Action.UPDATE)
                await make_active(tx, template, version, Manifest.model_validate(version.manifest))
                entry = AuditEntry(
                    actor_of(caller),
                    "promote",
                    "template",
                    version.template_id,
                    version.template_name,
                    version.organization_id,
                    changes({"version": before.active_version_name}, {"version": version.name}),
                )
                await record_deed(tx, entry)
            return Promoted(
                await template_for(tx, caller, version.template_id, Action.UPDATE),
                await version_for(tx, caller, version_id, Action.UPDATE),
                template.active_version_id,
            )

        return await self._database.run("promote", work)


async def make_active(tx: Transaction, template: LockedTemplate, version: VersionRow, manifest: Manifest) -> None:
    """Point a locked template to this version, with the strategy and the lifecycle of its manifest.

    Locks the pools of the version before and of this one.
    """
    await lock_pools(tx, [template.active_version_id, version.id])
    await set_active_version(tx, template.id, version.id, manifest)
    await tell_of_change(tx, version.organization_id, template.id)
