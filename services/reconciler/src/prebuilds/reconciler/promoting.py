"""Making a version the active one (behaviour section 2): its pools fill, those of the version before drain."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import VersionId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import actor_of, template_for, version_for
from prebuilds.reconciler.queries.templates import lock_template, set_active_version
from prebuilds.reconciler.queries.views import TemplateRow, VersionRow
from prebuilds.reconciler.rules.manifest import Manifest
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.outbox.writer import append
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
            template = await lock_template(tx, version.template_id)
            if template.deleted:
                raise Refusal(Reason.TEMPLATE_DELETED, f"template {version.template_name!r} is deleted")
            if template.active_version_id != version.id:
                await make_active(tx, version, Manifest.model_validate(version.manifest))
                entry = AuditEntry(
                    actor_of(caller),
                    "template.promote",
                    "template",
                    version.template_id,
                    version.template_name,
                    version.organization_id,
                    {"version": version.name},
                )
                await record_deed(tx, entry)
            return Promoted(
                await template_for(tx, caller, version.template_id, Action.UPDATE),
                await version_for(tx, caller, version_id, Action.UPDATE),
                template.active_version_id,
            )

        return await self._database.run("promote", work)


async def make_active(tx: Transaction, version: VersionRow, manifest: Manifest) -> None:
    """Point a locked template to this version, with the strategy and the lifecycle of its manifest."""
    await set_active_version(tx, version.template_id, version.id, manifest)
    await append(
        tx,
        EventKind.TEMPLATE_CHANGED,
        version.template_id,
        organization_id=version.organization_id,
        payload={"template_id": str(version.template_id)},
    )
