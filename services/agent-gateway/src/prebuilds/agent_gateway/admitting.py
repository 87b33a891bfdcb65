"""An agent and its own workspace: the first steps of everything that an agent changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prebuilds.agent_gateway.queries.agents import StoredAgent, find_agent, lock_agent
from prebuilds.agent_gateway.rules.tokens import Credentials, objection_to
from prebuilds.domain.principals import Agent
from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.store.database import Database
from prebuilds.store.pool.locks import LockedWorkspace, lock_prebuilds, lock_workspaces
from prebuilds.store.transactions import Transaction


@dataclass(frozen=True, slots=True)
class OwnWorkspace:
    """The caller's agent and its workspace, both locked."""

    agent: StoredAgent
    workspace: LockedWorkspace
    is_pooled: bool
    """It has a row in the pool, locked too: nobody has claimed it."""


def token_refusal(token: str, stored: Credentials | None, keys: Mapping[str, bytes]) -> Refusal | None:
    """The refusal that this token deserves beside what is stored; None where it counts."""
    reason = Reason.CREDENTIALS_INVALID if stored is None else objection_to(token, stored, keys)
    match reason:
        case None:
            return None
        case Reason.TOKEN_REVOKED:
            return Refusal(reason, "this agent's token is revoked")
        case _:
            return Refusal(reason, "this is no agent's token")


class Admission:
    """Checks tokens where nothing else is read."""

    def __init__(self, database: Database, keys: Mapping[str, bytes]) -> None:
        """`keys` are those of agents' tokens, by id."""
        self._database = database
        self._keys = keys

    async def check(self, caller: Agent) -> None:
        """Raise a refusal of the class UNAUTHENTICATED where the caller's token does not count."""
        async with self._database.read("check token") as tx:
            found = await find_agent(tx, caller.agent_id)
        if refusal := token_refusal(caller.token, found.credentials if found else None, self._keys):
            raise refusal


async def lock_own_workspace(tx: Transaction, caller: Agent, keys: Mapping[str, bytes]) -> OwnWorkspace:
    """Lock pool row (if any), workspace and agent of the caller; raises a refusal of the class UNAUTHENTICATED.

    The token is checked before anything is locked, so that a stranger locks nothing, and again under the locks.
    """
    found = await find_agent(tx, caller.agent_id)
    if refusal := token_refusal(caller.token, found.credentials if found else None, keys):
        raise refusal
    assert found is not None  # noqa: S101 - or its token was refused
    pooled = await lock_prebuilds(tx, [found.workspace_id])
    workspaces = await lock_workspaces(tx, [found.workspace_id])
    agent = await lock_agent(tx, caller.agent_id)
    if refusal := token_refusal(caller.token, agent.credentials if agent else None, keys):
        raise refusal
    assert agent is not None  # noqa: S101 - as above
    return OwnWorkspace(agent, workspaces[0], bool(pooled))
