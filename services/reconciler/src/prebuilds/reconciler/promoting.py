"""Making a version the active one (behaviour section 2): its pools fill, those of the version before drain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select, update

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import VersionId
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.access import actor_of, template_for, version_for
from prebuilds.reconciler.queries.templates import TemplateRow, VersionRow
from prebuilds.reconciler.rules.durations import parse_duration
from prebuilds.reconciler.rules.manifest import Manifest
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.database import Database
from prebuilds.store.outbox.writer import append
from prebuilds.store.schema import Template
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class Promoted:
    """What is active now, and what was."""

    template: TemplateRow
    version: VersionRow
    previous_version_id: VersionId | None


async def promote(database: Database, caller: Caller, version_id: UUID) -> Promoted:
    """Make a version the active one; does nothing where it is already. Refuses TEMPLATE_DELETED."""

    async def work(tx: Transaction) -> Promoted:
        version = await version_for(tx, caller, version_id, Action.UPDATE)
        statement = select(Template.active_version_id, Template.deleted).where(Template.id == version.template_id)
        previous, deleted = (await tx.execute(statement.with_for_update(key_share=True))).one()
        if deleted:
            raise Refusal(Reason.TEMPLATE_DELETED, f"template {version.template_name!r} is deleted")
        if previous != version.id:
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
            None if previous is None else VersionId(previous),
        )

    return await database.run("promote", work)


async def make_active(tx: Transaction, version: VersionRow, manifest: Manifest) -> None:
    """Point a locked template to this version, with the strategy and the lifecycle of its manifest."""
    values: dict[str, object] = {"active_version_id": version.id, "claim_strategy": manifest.claim_strategy}
    lifecycle = manifest.lifecycle
    if lifecycle is not None:
        durations = {
            "default_ttl": lifecycle.ttl,
            "time_til_dormant": lifecycle.time_til_dormant,
            "time_til_dormant_autodelete": lifecycle.time_til_dormant_autodelete,
        }
        values |= {name: _positive(text) for name, text in durations.items() if text is not None}
        if lifecycle.autostart is not None:
            values["autostart"] = lifecycle.autostart
    statement = update(Template).where(Template.id == version.template_id)
    await tx.execute(statement.values(**values, updated_at=func.now()))
    await append(
        tx,
        EventKind.TEMPLATE_CHANGED,
        version.template_id,
        organization_id=version.organization_id,
        payload={"template_id": str(version.template_id)},
    )


def _positive(text: str) -> timedelta | None:
    """A length of time; None where it is zero, which means never."""
    return parse_duration(text) or None
