"""Agents: whose token counts, which incarnation runs and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prebuilds.agent_gateway.rules.incarnations import Beginning
from prebuilds.agent_gateway.rules.tokens import Credentials
from prebuilds.domain.agents import AgentState
from prebuilds.domain.ids import AgentId, WorkspaceId
from prebuilds.store.sql import SqlFolder
from prebuilds.store.transactions import Transaction

_queries: Final = SqlFolder("prebuilds.agent_gateway.queries")


@dataclass(frozen=True, slots=True)
class StoredAgent:
    """An agent as Postgres has it."""

    agent_id: AgentId
    name: str
    workspace_id: WorkspaceId
    token_key_id: str | None
    token_epoch: int
    retired: bool
    deleted: bool
    """The workspace is."""
    incarnation: int
    process: str
    entry: int
    generation: int
    state: AgentState

    @property
    def credentials(self) -> Credentials:
        """What its token is checked against."""
        return Credentials(self.agent_id, self.token_key_id, self.token_epoch, self.retired, self.deleted)

    @property
    def beginning(self) -> Beginning:
        """What began its present incarnation; of no process where nothing did in this epoch."""
        return Beginning(self.process, self.entry)


async def find_agent(tx: Transaction, agent_id: AgentId) -> StoredAgent | None:
    """The agent of that id, without any lock."""
    return await tx.fetch_one(_queries["find_agent"], {"agent_id": agent_id}, row=StoredAgent)


async def lock_agent(tx: Transaction, agent_id: AgentId) -> StoredAgent | None:
    """Lock the agent of that id, whose pool row and workspace the caller has locked."""
    return await tx.fetch_one(_queries["lock_agent"], {"agent_id": agent_id}, row=StoredAgent)


async def begin_incarnation(
    tx: Transaction, agent_id: AgentId, beginning: Beginning, *, incarnation: int, generation: int
) -> None:
    """Begin an incarnation of a locked agent; streams of earlier ones hold it no more."""
    await tx.run(
        _queries["begin_incarnation"],
        {
            "agent_id": agent_id,
            "incarnation": incarnation,
            "process": beginning.process,
            "entry": beginning.entry,
            "generation": generation,
        },
    )


async def store_state(tx: Transaction, agent_id: AgentId, state: AgentState, error: str) -> None:
    """Store the state of a locked agent."""
    await tx.run(_queries["store_state"], {"agent_id": agent_id, "state": state, "error": error})
