"""The reinit streams that this process holds, in memory; Postgres says what each of them gets."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self
from uuid import uuid4

from prebuilds.domain.ids import AgentId, ClaimId, ConnectionId, UserId, WorkspaceId
from prebuilds.domain.principals import Agent
from prebuilds.domain.refusals import Refusal
from prebuilds.store.pool.connections import Connection


@dataclass(frozen=True, slots=True)
class Reinit:
    """Tells an agent to begin again for a new owner."""

    workspace_id: WorkspaceId
    claim_id: ClaimId | None
    generation: int
    owner_id: UserId | None
    owner_name: str
    traceparent: str


class HeldStream:
    """One open stream: who opened it, what it was sent, and what its servicer waits for."""

    __slots__ = (
        "_is_over",
        "_refusal",
        "_unsent",
        "_waiter",
        "agent",
        "attempt",
        "connection",
        "connection_id",
        "incarnation",
        "reinit_generation",
        "workspace_id",
    )

    def __init__(self, agent: Agent, *, incarnation: int, attempt: int) -> None:
        """Nobody has looked at it yet: neither its token nor its workspace is known to be good."""
        self.agent = agent
        self.incarnation = incarnation
        self.attempt = attempt
        self.connection_id = ConnectionId(uuid4())
        self.workspace_id: WorkspaceId | None = None
        """Null until the first look, which checks the token."""
        self.connection: Connection | None = None
        """What was, or is to be, attached in Postgres; null where the connection was never tracked."""
        self.reinit_generation = 0
        """Highest generation that a `Reinit` was sent for."""
        self._unsent: list[Reinit] = []
        self._is_over = False
        self._refusal: Refusal | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def agent_id(self) -> AgentId:
        """Whose stream it says that it is."""
        return self.agent.agent_id

    @property
    def is_over(self) -> bool:
        """Whether it is ending or has ended."""
        return self._is_over

    def is_later_than(self, other: HeldStream) -> bool:
        """Of two streams of an agent the higher incarnation and then the higher attempt counts; of two alike, this."""
        return (self.incarnation, self.attempt) >= (other.incarnation, other.attempt)

    def send(self, reinit: Reinit) -> None:
        """Send it, after what is still unsent."""
        self._unsent.append(reinit)
        self._wake()

    def end(self, refusal: Refusal | None = None) -> None:
        """End it, with OK or this refusal, when all is sent; the first end counts."""
        if not self._is_over:
            self._is_over = True
            self._refusal = refusal
            self._wake()

    def __aiter__(self) -> Self:
        """What is to be sent, until the end."""
        return self

    async def __anext__(self) -> Reinit:
        """Wait for the next; raises the refusal that the stream ends with."""
        while not self._unsent:
            if self._refusal is not None:
                raise self._refusal
            if self._is_over:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._unsent.pop(0)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class HeldStreams:
    """All of them, by agent and by workspace."""

    def __init__(self) -> None:
        """None at first."""
        self._all: set[HeldStream] = set()
        self._unplaced: set[HeldStream] = set()
        self._by_workspace: dict[WorkspaceId, set[HeldStream]] = {}
        self._by_agent: dict[AgentId, HeldStream] = {}

    def __len__(self) -> int:
        """How many are open."""
        return len(self._all)

    def __contains__(self, stream: HeldStream) -> bool:
        """Whether it is still open."""
        return stream in self._all

    @property
    def everything(self) -> Collection[HeldStream]:
        """All that are open."""
        return self._all

    @property
    def unplaced(self) -> Collection[HeldStream]:
        """Those that nobody has looked at yet: any workspace may be theirs."""
        return self._unplaced

    def of_workspace(self, workspace_id: WorkspaceId) -> Collection[HeldStream]:
        """Those of that workspace that have been looked at."""
        return self._by_workspace.get(workspace_id, ())

    def enter(self, stream: HeldStream) -> None:
        """Hold it from now on."""
        self._all.add(stream)
        self._unplaced.add(stream)

    def place(self, stream: HeldStream, workspace_id: WorkspaceId) -> HeldStream | None:
        """Let it stand for its agent, its token having been checked; answers the stream that it thereby replaces.

        Where a later stream of the agent is held already, the answer is this one.
        """
        if stream.workspace_id is None:
            stream.workspace_id = workspace_id
            self._unplaced.discard(stream)
            self._by_workspace.setdefault(workspace_id, set()).add(stream)
        present = self._by_agent.get(stream.agent_id)
        if present is stream:
            return None
        if present is not None and not stream.is_later_than(present):
            return stream
        self._by_agent[stream.agent_id] = stream
        return present

    def leave(self, stream: HeldStream) -> None:
        """Forget it."""
        self._all.discard(stream)
        self._unplaced.discard(stream)
        if self._by_agent.get(stream.agent_id) is stream:
            del self._by_agent[stream.agent_id]
        if stream.workspace_id is not None:
            siblings = self._by_workspace[stream.workspace_id]
            siblings.discard(stream)
            if not siblings:
                del self._by_workspace[stream.workspace_id]
