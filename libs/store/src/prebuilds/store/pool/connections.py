"""Which gateways hold the agents of prebuilds (behaviour section 8, *Connection*), in batches.

Three statements, in the order of the locks: pool rows by id; agents by id, where nothing later is stored; and, in a
later statement that sees what others wrote while the locks were waited for, the pool rows' sets of gateways. A crash
before the commit changes nothing: a gateway that lives attaches again at its next check, one that died ages with its
row in `gateways`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prebuilds.domain.events import EventKind
from prebuilds.domain.ids import AgentId, ConnectionId, GatewayId, OrganizationId, WorkspaceId
from prebuilds.store.outbox.writer import Event, append_many
from prebuilds.store.pool.locks import lock_prebuilds
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.store.pool")


@dataclass(frozen=True, slots=True)
class Connection:
    """One stream of an agent; of two, that of the higher incarnation and then the higher attempt counts."""

    connection_id: ConnectionId
    agent_id: AgentId
    workspace_id: WorkspaceId
    epoch: int
    """Epoch of the token that the stream was opened with."""
    incarnation: int
    attempt: int


async def attach(tx: Transaction, gateway_id: GatewayId, streams: Sequence[Connection]) -> frozenset[ConnectionId]:
    """Attach these streams, at most one for each agent; answers which were, where no later one is stored.

    Locks pool rows, agents, outbox. Streams of workspaces that are no prebuilds are stored with their agents alone.
    """
    if not streams:
        return frozenset()
    workspace_ids = sorted({stream.workspace_id for stream in streams})
    prebuilds = await lock_prebuilds(tx, workspace_ids)
    cursor = await tx.run(
        _queries["attach"],
        {
            "gateway_id": gateway_id,
            "agent_ids": [stream.agent_id for stream in streams],
            "connection_ids": [stream.connection_id for stream in streams],
            "epochs": [stream.epoch for stream in streams],
            "incarnations": [stream.incarnation for stream in streams],
            "attempts": [stream.attempt for stream in streams],
        },
    )
    attached = frozenset(ConnectionId(row[0]) for row in await cursor.fetchall())
    await refresh_connections(tx, sorted(prebuilds))
    return attached


async def detach(tx: Transaction, streams: Sequence[Connection]) -> None:
    """Detach these streams where they are still the ones that count. Locks pool rows, agents."""
    if not streams:
        return
    prebuilds = await lock_prebuilds(tx, sorted({stream.workspace_id for stream in streams}))
    await tx.run(
        _queries["detach"],
        {
            "agent_ids": [stream.agent_id for stream in streams],
            "connection_ids": [stream.connection_id for stream in streams],
        },
    )
    await refresh_connections(tx, sorted(prebuilds))


async def refresh_connections(tx: Transaction, workspace_ids: Sequence[WorkspaceId]) -> None:
    """Count the gateways of locked pool rows anew, in a statement later than what may have changed them.

    Who may now be claimed is told to those who wait in line.
    """
    if not workspace_ids:
        return
    cursor = await tx.run(_queries["refresh_connections"], {"workspace_ids": list(workspace_ids)})
    news = [
        Event(
            EventKind.AGENT_READY,
            workspace_id,
            OrganizationId(organization_id),
            {"workspace_id": str(workspace_id), "preset_id": str(preset_id)},
        )
        for workspace_id, organization_id, preset_id, is_claimable in await cursor.fetchall()
        if is_claimable
    ]
    await append_many(tx, news)
