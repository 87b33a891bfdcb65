"""How a claim goes on: `building -> handing_over -> acknowledged`, or `failed`, or `superseded`.

Every move is made in the transaction of what causes it, under the lock of the workspace (and, before it, of its pool
row). `handover_generation` follows `claim_generation` here and in the claim's own statement, nowhere else; what agents
see goes by it (behaviour section 8). A crash before the commit leaves the claim where it was, to be moved by the
repetition of its cause: a daemon's report is repeated, an agent's report is repeated, a lease expires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prebuilds.domain.agents import AgentState
from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import ClaimId, OrganizationId, WorkspaceId
from prebuilds.store.outbox.writer import Event, append_many
from prebuilds.store.pool.locks import LockedWorkspace
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.handover")


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The end of a handover; the names are those of the pool that the claim took from."""

    claim_id: ClaimId
    outcome: AgentState
    """The worst end of a startup among the agents."""
    took: timedelta
    """From the claim's commit."""
    organization: str
    template: str
    preset: str


async def make_due(tx: Transaction, workspace: LockedWorkspace) -> ClaimId | None:
    """Hand the workspace over: its claim build is done. None when no claim was being built."""
    claim_id = await _move(tx, "due", {"workspace_id": workspace.workspace_id})
    if claim_id is not None:
        await append_many(tx, [_event(EventKind.HANDOVER_DUE, workspace, claim_id)])
    return claim_id


async def fail(tx: Transaction, workspace: LockedWorkspace, reason: str) -> ClaimId | None:
    """End the claim whose build did not succeed. None when no claim was being built."""
    claim_id = await _move(tx, "fail", {"workspace_id": workspace.workspace_id, "reason": reason})
    if claim_id is not None:
        await append_many(tx, [_event(EventKind.HANDOVER_ENDED, workspace, claim_id)])
    return claim_id


async def supersede(tx: Transaction, workspace_ids: Sequence[WorkspaceId], *, reason: str) -> None:
    """Let agents that connect from now on begin with the current manifest; end the claims still being handed over."""
    cursor = await tx.run(_queries["supersede"], {"workspace_ids": list(workspace_ids), "reason": reason})
    ended = [
        Event(
            EventKind.HANDOVER_ENDED,
            workspace_id,
            OrganizationId(organization_id),
            {"workspace_id": str(workspace_id), "claim_id": str(claim_id)},
        )
        for claim_id, workspace_id, organization_id in await cursor.fetchall()
    ]
    await append_many(tx, ended)


async def acknowledge(tx: Transaction, workspace: LockedWorkspace) -> Acknowledgement | None:
    """Acknowledge the claim if by now every agent runs for the new owner; None while that is not so.

    Call it in a statement later than the agents' own updates, under the workspace's lock: two agents that finish
    together then count each other.
    """
    acknowledgement = await tx.fetch_one(
        _queries["acknowledge"], {"workspace_id": workspace.workspace_id}, row=Acknowledgement
    )
    if acknowledgement is not None:
        await append_many(tx, [_event(EventKind.ACKNOWLEDGED, workspace, acknowledgement.claim_id)])
    return acknowledgement


async def _move(tx: Transaction, query: str, parameters: dict[str, object]) -> ClaimId | None:
    cursor = await tx.run(_queries[query], parameters)
    row = await cursor.fetchone()
    return ClaimId(row[0]) if row else None


def _event(kind: EventKind, workspace: LockedWorkspace, claim_id: ClaimId) -> Event:
    return Event(
        kind,
        workspace.workspace_id,
        workspace.organization_id,
        {
            "workspace_id": str(workspace.workspace_id),
            "claim_id": str(claim_id),
            "generation": workspace.claim_generation,
        },
    )
