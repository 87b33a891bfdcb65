"""What people are told: one row for all of a role, written in the transaction of what it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import OrganizationId
from prebuilds.domain.notifications import MAX_BODY, MAX_TITLE, NotificationKind
from prebuilds.domain.principals import Role
from prebuilds.store.outbox.writer import append
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store")


@dataclass(frozen=True, slots=True)
class Notification:
    """What the people of a role in an organisation are told; title and body hold no secret, and are cut to length."""

    organization_id: OrganizationId
    role: Role
    kind: NotificationKind
    subject_id: UUID
    """What it is about, by kind."""
    title: str
    body: str


async def notify(tx: Transaction, notification: Notification) -> None:
    """Write one notification and its event. Locks outbox."""
    id_ = uuid4()
    await tx.run(
        _queries["add_notification"],
        {
            "id": id_,
            "organization_id": notification.organization_id,
            "role": notification.role,
            "kind": notification.kind,
            "subject_id": notification.subject_id,
            "title": notification.title[:MAX_TITLE],
            "body": notification.body[:MAX_BODY],
        },
    )
    await append(tx, EventKind.NOTIFICATION, id_, organization_id=notification.organization_id)
