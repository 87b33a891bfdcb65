"""Deeds that more than one use case does, in the audit log."""

from __future__ import annotations

from prebuilds.chassis.caller import Caller
from prebuilds.reconciler.access import actor_of
from prebuilds.reconciler.queries.views import MemberRow
from prebuilds.store.audit import AuditEntry, record_deed
from prebuilds.store.transactions import Transaction


async def record_membership(
    tx: Transaction, caller: Caller, verb: str, member: MemberRow, details: dict[str, object]
) -> None:
    """Write down who changed a membership."""
    entry = AuditEntry(
        actor_of(caller),
        verb,
        "member",
        member.user_id,
        member.user_name,
        member.organization_id,
        details,
    )
    await record_deed(tx, entry)
