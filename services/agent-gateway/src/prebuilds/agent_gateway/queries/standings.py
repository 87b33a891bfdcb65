"""Where streams stand, for many agents in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prebuilds.agent_gateway.rules.tokens import Credentials
from prebuilds.domain.ids import SYSTEM_USER_ID, AgentId, ClaimId, ConnectionId, GatewayId, UserId, WorkspaceId
from prebuilds.store.database import Database
from prebuilds.store.sql import SqlFolder

_queries: Final = SqlFolder("prebuilds.agent_gateway.queries")


@dataclass(frozen=True, slots=True)
class StoredStanding:
    """What Postgres has of an agent, its workspace, and the handover that may be due."""

    agent_id: AgentId
    workspace_id: WorkspaceId
    token_key_id: str | None
    token_epoch: int
    retired: bool
    deleted: bool
    incarnation: int
    generation: int
    attempt: int
    """Highest attempt of the incarnation's streams that was attached."""
    gateway_id: GatewayId | None
    connection_id: ConnectionId | None
    owner_id: UserId
    claim_generation: int
    handover_generation: int
    is_tracked: bool
    """Its connection is: the workspace is an unclaimed prebuild, or its handover is open."""
    claim_id: ClaimId | None
    """The claim that is due and that the incarnation does not run yet; null where none is, as the next two."""
    new_owner_id: UserId | None
    new_owner_name: str | None

    @property
    def credentials(self) -> Credentials:
        """What the agent's token is checked against."""
        return Credentials(self.agent_id, self.token_key_id, self.token_epoch, self.retired, self.deleted)

    @property
    def is_prebuild(self) -> bool:
        """Whether the system user owns the workspace."""
        return self.owner_id == SYSTEM_USER_ID


async def read_standings(database: Database, agent_ids: Sequence[AgentId]) -> Mapping[AgentId, StoredStanding]:
    """Read these agents' standings in one statement of its own; agents that do not exist are left out."""
    rows = await database.fetch_once(
        "standings", _queries["standings"], {"agent_ids": list(agent_ids)}, row=StoredStanding
    )
    return {row.agent_id: row for row in rows}
