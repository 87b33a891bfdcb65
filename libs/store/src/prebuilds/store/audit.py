"""The audit log: every change of state by a person, written in the transaction of the change (design section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import insert

from prebuilds.domain.ids import OrganizationId
from prebuilds.store import schema
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it: `principal` is kind and id (`person:<uuid>`, `service:reconciler`), `name` is for people."""

    principal: str
    name: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One deed; details hold no secret."""

    actor: Actor
    verb: str
    resource: str
    resource_id: UUID
    resource_name: str
    organization_id: OrganizationId | None = None
    details: Mapping[str, object] = field(default_factory=dict[str, object])
    """More about it, by action; plain values, which JSON has."""

    @property
    def action(self) -> str:
        """What was done, to what kind of thing: `workspace.create`. The claim's own statement spells it so too."""
        return f"{self.resource}.{self.verb}"


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    """What a change changed, as details: each field of `after` that is another than before, from what to what."""
    return {name: {"from": before.get(name), "to": value} for name, value in after.items() if value != before.get(name)}


async def record_deed(tx: Transaction, entry: AuditEntry) -> None:
    """Append one entry; locks nothing."""
    await tx.execute(
        insert(schema.AuditEvent).values(
            organization_id=entry.organization_id,
            principal=entry.actor.principal,
            principal_name=entry.actor.name,
            action=entry.action,
            resource=entry.resource,
            resource_id=entry.resource_id,
            resource_name=entry.resource_name,
            details=dict(entry.details),
        )
    )
