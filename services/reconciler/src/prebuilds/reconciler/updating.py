"""Changing what a template says about itself and about workspaces to come; those that exist keep what they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final, TypeAlias
from uuid import UUID

from prebuilds.chassis.caller import Caller
from prebuilds.chassis.policy import Action
from prebuilds.domain.durations import written
from prebuilds.reconciler.access import actor_of, template_for
from prebuilds.reconciler.news import tell_of_change
from prebuilds.reconciler.queries.templates import update_template
from prebuilds.reconciler.queries.views import TemplateRow
from prebuilds.reconciler.templating import lock_live
from prebuilds.store.audit import AuditEntry, changes, record_deed
from prebuilds.store.database import Database
from prebuilds.store.transactions import Transaction

TemplateValue: TypeAlias = str | int | timedelta | None
"""What a field holds; an empty text or None is a field that is cleared."""

COLUMNS: Final[Mapping[str, str]] = {
    "display_name": "display_name",
    "description": "description",
    "lifecycle.ttl": "default_ttl",
    "lifecycle.autostart_schedule": "autostart",
    "lifecycle.time_til_dormant": "time_til_dormant",
    "lifecycle.time_til_dormant_autodelete": "time_til_dormant_autodelete",
    "max_starting": "max_starting",
}
"""The fields that can be changed, by their path, and where each is stored."""


@dataclass(frozen=True, slots=True)
class UpdateOrder:
    """What somebody wants changed."""

    template_id: UUID
    values: Mapping[str, TemplateValue]
    """By the field's path."""


class Updating:
    """Changes templates."""

    def __init__(self, database: Database) -> None:
        """Work in this database."""
        self._database = database

    async def update(self, caller: Caller, order: UpdateOrder) -> TemplateRow:
        """Change these fields and no others; does nothing where all are so already. Refuses TEMPLATE_DELETED."""

        async def work(tx: Transaction) -> TemplateRow:
            found = await template_for(tx, caller, order.template_id, Action.UPDATE)
            await lock_live(tx, found.id, found.name)
            # A later statement than the lock's: it sees what whoever held it before has committed.
            template = await template_for(tx, caller, order.template_id, Action.UPDATE)
            stored = asdict(template)
            changed = {path: value for path, value in order.values.items() if stored[COLUMNS[path]] != value}
            if not changed:
                return template
            await update_template(tx, template.id, {COLUMNS[path]: value for path, value in changed.items()})
            before = {path: _plain(stored[COLUMNS[path]]) for path in changed}
            after = {path: _plain(value) for path, value in changed.items()}
            entry = AuditEntry(
                actor_of(caller),
                "update",
                "template",
                template.id,
                template.name,
                template.organization_id,
                changes(before, after),
            )
            await record_deed(tx, entry)
            await tell_of_change(tx, template.organization_id, template.id)
            return await template_for(tx, caller, order.template_id, Action.UPDATE)

        return await self._database.run("update template", work)


def _plain(value: TemplateValue) -> str | int | None:
    """A value as the audit log has it."""
    return written(value) if isinstance(value, timedelta) else value
